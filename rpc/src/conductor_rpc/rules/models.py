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

_NAME, _REQUIRED, _DETAIL = Text(63), Text(63, required=True), Text(1000)

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
        "detail": _DETAIL,
    },
    RollbackModelRequest: {"tenant_id": TENANT, "predictor": _REQUIRED, "channel": _NAME, "detail": _DETAIL},
    WithdrawModelRequest: {
        "tenant_id": TENANT,
        "predictor": _REQUIRED,
        "channel": _REQUIRED,
        "detail": _DETAIL,
    },
}
TOGETHER: Mapping[type[Message], Together] = {}
