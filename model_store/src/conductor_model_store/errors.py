"""What can go wrong with the model store."""

from conductor_storage import StorageUnavailable


class ModelStoreError(Exception):
    """Base of every error of the model store; its text says what to do or look at."""


class InvalidScope(ModelStoreError, ValueError):
    """A predictor, tenant, channel or version that can't name anything in the store."""


class InvalidManifest(ModelStoreError, ValueError):
    """A manifest that doesn't describe the graph beside it; nothing was written."""


class ModelNotFound(ModelStoreError, LookupError):
    """The store doesn't hold the version, the channel or the file that a version needs."""


class CorruptModel(ModelStoreError):
    """The store holds the version, but not as it was published (half-written, altered or misplaced)."""


class PointerMoved(ModelStoreError):
    """Another process moved the channel at the same time; look again before deciding anew."""


class ModelStoreUnavailable(ModelStoreError, StorageUnavailable):
    """The storage behind the model store doesn't answer or refuses."""


class UntrustedModel(ModelStoreError):
    """The version bears no signature by a trusted key, or one of something else; it never loads."""


class InvalidKey(ModelStoreError, ValueError):
    """A file that is no key to sign or check models with."""


class RefusedPointer(ModelStoreError):
    """A generation of a channel that does not count; the one before it does."""


class UntrustedPointer(RefusedPointer):
    """It bears no signature by a key that is trusted to move channels, or one of something else."""


class RewoundPointer(RefusedPointer):
    """An earlier generation than one that was seen: what was put back, or what is left after a deletion."""


class ForkedPointer(RefusedPointer):
    """Its chain does not lead to the generation that was seen: somebody hid moves from whoever made it."""


class NoAuthority(ModelStoreError):
    """There is no key here that servers trust to move channels; nothing was changed."""
