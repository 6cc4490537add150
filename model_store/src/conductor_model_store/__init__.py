"""The handover from training to serving: manifests, blobs and channels."""

from conductor_model_store.errors import (
    CorruptModel,
    InvalidManifest,
    InvalidScope,
    ModelNotFound,
    ModelStoreError,
    ModelStoreUnavailable,
    PointerMoved,
)
from conductor_model_store.records import LoadedModel, ModelVersion, Pointer, StoredVersion
from conductor_model_store.scope import ModelScope
from conductor_model_store.store import CHAMPION, ModelStore

__all__ = [
    "CHAMPION",
    "CorruptModel",
    "InvalidManifest",
    "InvalidScope",
    "LoadedModel",
    "ModelNotFound",
    "ModelScope",
    "ModelStore",
    "ModelStoreError",
    "ModelStoreUnavailable",
    "ModelVersion",
    "Pointer",
    "PointerMoved",
    "StoredVersion",
]
