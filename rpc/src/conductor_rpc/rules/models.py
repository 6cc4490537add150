"""Rules of requests about models."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from conductor.model.v1.model_service_pb2 import (
    GetModelRequest,
    ListModelsRequest,
    PromoteModelRequest,
    RollbackModelRequest,
    WatchModelsRequest,
    WithdrawModelRequest,
)
from conductor_rpc.rules.engine import TENANT, Number, Table, Text, Together

_NAME, _REQUIRED = Text(63), Text(63, required=True)

TABLES: Mapping[type[Message], Table] = {
    ListModelsRequest: {"tenant_id": TENANT, "predictor": _NAME},
    WatchModelsRequest: {"tenant_id": TENANT, "predictor": _NAME},
    GetModelRequest: {"tenant_id": TENANT, "predictor": _REQUIRED},
    PromoteModelRequest: {
        "tenant_id": TENANT,
        "predictor": _REQUIRED,
        "version": _REQUIRED,
        "channel": _NAME,
        "weight": Number(0, 1),
    },
    RollbackModelRequest: {"tenant_id": TENANT, "predictor": _REQUIRED, "channel": _NAME},
    WithdrawModelRequest: {
        "tenant_id": TENANT,
        "predictor": _REQUIRED,
        "channel": _REQUIRED,
        "detail": Text(1000),
    },
}
TOGETHER: Mapping[type[Message], Together] = {}
