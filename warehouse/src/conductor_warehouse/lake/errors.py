"""What can go wrong with the lake."""

from conductor_storage import StorageUnavailable


class LakeError(Exception):
    """Base of every error of the lake; its text says what to do or look at."""


class LakeUnavailable(LakeError, StorageUnavailable):
    """The storage behind the lake doesn't answer or refuses."""


class LakeCorrupt(LakeError):
    """The lake holds a file, but not as it was written."""


class VersionNotFound(LakeError, LookupError):
    """The lake doesn't hold the version, or nothing was exported to it yet."""


class LakeMoved(LakeError):
    """Other exports are published all the time; nothing was lost, but this one did not come through."""
