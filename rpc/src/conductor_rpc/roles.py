"""Who may call what: one table of every method of every service. What is not in it is nobody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from conductor_rpc.call import Identity
from conductor_rpc.exceptions import RoleRequired

PREDICT: Final = "predict"
"""Ask for predictions."""
PUBLISH: Final = "publish"
"""Send events in."""
OPERATE: Final = "operate"
"""Move the tenant's models."""
ROLES: Final = frozenset({PREDICT, PUBLISH, OPERATE})

MODELS_ADMIN: Final = "models:admin"
"""A further scope: with ``operate``, move global models too."""
SCOPES: Final = ROLES | {MODELS_ADMIN}
"""All that credentials can allow."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a method."""

    roles: frozenset[str] = frozenset()
    """Any one of them suffices."""
    without_credentials: bool = False
    """For probes, which have none."""
    audited: bool = False
    """An administrative call: each attempt is in the audit log."""


_OPEN = Access(without_credentials=True)
_NOBODY = Access()
_ANY = Access(ROLES)
_PREDICTS, _PUBLISHES = Access(frozenset({PREDICT})), Access(frozenset({PUBLISH}))
_OPERATES = Access(frozenset({OPERATE}), audited=True)

_SERVICES: Mapping[str, Mapping[str, Access]] = {
    "conductor.prediction.v1.PredictionService": {
        "PredictBuildDuration": _PREDICTS,
        "BatchPredictBuildDurations": _PREDICTS,
        "StreamBuildDurationPredictions": _PREDICTS,
    },
    "conductor.testing.v1.TestIntelligenceService": {
        "PredictTestFailures": _PREDICTS,
        "SelectTests": _PREDICTS,
        "PrioritizeTests": _PREDICTS,
        "ListFlakyTests": _PREDICTS,
        "ClassifyFailure": _PREDICTS,
    },
    "inference.GRPCInferenceService": {
        "ServerLive": _OPEN,
        "ServerReady": _OPEN,
        "ServerMetadata": _ANY,
        "ModelReady": _PREDICTS,
        "ModelMetadata": _PREDICTS,
        "ModelConfig": _PREDICTS,
        "ModelInfer": _PREDICTS,
    },
    "conductor.model.v1.ModelService": {
        "ListModels": _ANY,
        "GetModel": _ANY,
        "WatchModels": _ANY,
        "PromoteModel": _OPERATES,
        "RollbackModel": _OPERATES,
        "WithdrawModel": _OPERATES,
    },
    "conductor.events.v1.EventService": {"PublishEvents": _PUBLISHES},
    "grpc.health.v1.Health": {"Check": _OPEN, "Watch": _OPEN, "List": _OPEN},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _ANY},
}

METHODS: Mapping[str, Access] = {
    f"/{service}/{method}": access for service, methods in _SERVICES.items() for method, access in methods.items()
}
"""By full method name."""
AUDITED: Final = frozenset(method for method, access in METHODS.items() if access.audited)


def access(method: str) -> Access:
    """Who may call a method; nobody where the table does not know it."""
    return METHODS.get(method, _NOBODY)


def require_role(identity: Identity, method: str) -> None:
    """Raises:
    RoleRequired: the identity may not call the method.
    """
    roles = access(method).roles
    if roles.isdisjoint(identity.scopes):
        raise RoleRequired(roles)
