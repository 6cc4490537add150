"""The handover from training to serving: manifests, blobs and channels."""

from conductor_model_store.errors import (
    CorruptModel,
    ForkedPointer,
    InvalidKey,
    InvalidManifest,
    InvalidScope,
    ModelNotFound,
    ModelStoreError,
    ModelStoreUnavailable,
    NoAuthority,
    PointerMoved,
    RefusedPointer,
    RewoundPointer,
    UntrustedModel,
    UntrustedPointer,
)
from conductor_model_store.pointer_memory import PointerMemory
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
    "ForkedPointer",
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
    "NoAuthority",
    "Pointer",
    "PointerMemory",
    "PointerMoved",
    "PointerWatch",
    "RefusedPointer",
    "RewoundPointer",
    "StoredVersion",
    "UntrustedModel",
    "UntrustedPointer",
]
