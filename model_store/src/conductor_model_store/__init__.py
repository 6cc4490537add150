"""The handover from training to serving: manifests, blobs and channels."""

from conductor_model_store.errors import (
    CorruptModel,
    InvalidKey,
    InvalidManifest,
    InvalidScope,
    ModelNotFound,
    ModelStoreError,
    ModelStoreUnavailable,
    PointerMoved,
    UntrustedModel,
)
from conductor_model_store.records import LoadedModel, ModelVersion, Pointer, StoredVersion
from conductor_model_store.scope import ModelScope
from conductor_model_store.store import CANARY, CHALLENGER, CHAMPION, CHANNELS, SHADOW, ModelStore
from conductor_model_store.watch import PointerWatch

__all__ = [
    "CANARY",
    "CHALLENGER",
    "CHAMPION",
    "CHANNELS",
    "SHADOW",
    "CorruptModel",
    "InvalidKey",
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
    "PointerWatch",
    "StoredVersion",
    "UntrustedModel",
]
