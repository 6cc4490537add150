"""One storage, files or S3's protocol, seen by publishers and servers with different keys."""

from dataclasses import dataclass

from securesystemslib.signer import CryptoSigner

from conductor_model_store import ModelStore
from conductor_model_store.signatures import Trust
from conductor_storage import ObstoreObjects

FIRST, SECOND, FOREIGN = (CryptoSigner.generate_ed25519() for _ in range(3))


def keys_of(*signers):
    """Their public keys by id."""
    return {one.public_key.keyid: one.public_key for one in signers}


def trust(*signers, signer=FIRST, **more):
    """Trust in those signers' keys; ``signer`` signs."""
    return Trust(signer=signer, keys=keys_of(*(signers or (FIRST,))), **more)


@dataclass
class Place:
    """A storage, and the bucket behind it if it is S3."""

    objects: ObstoreObjects
    bucket: dict[str, bytes] | None = None

    def store(self, trust=None, **more):
        return ModelStore(self.objects, trust=trust, **more)

    def edit(self, key, change):
        content = self.objects.get(key)
        assert content is not None, key
        self.objects.put(key, change(content))

    def take_away(self, key):
        if self.bucket is None:
            self.objects.delete(key)
        else:
            del self.bucket[f"models/{key}"]

    def copy(self, source, target):
        self.objects.put(target, self.objects.get(source))
