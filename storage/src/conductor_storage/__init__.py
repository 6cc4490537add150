"""Objects by key, on a file tree or an object store: what the model store and the lake stand on."""

from conductor_storage.names import LONGEST_SEGMENT, quote_segment, unquote_segment
from conductor_storage.objects import Objects, ObstoreObjects, StorageUnavailable, StoredObject

__all__ = [
    "LONGEST_SEGMENT",
    "Objects",
    "ObstoreObjects",
    "StorageUnavailable",
    "StoredObject",
    "quote_segment",
    "unquote_segment",
]
