"""Rules of prediction requests."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    PredictBuildDurationRequest,
    StreamBuildDurationPredictionsRequest,
)
from conductor_rpc.rules.engine import TENANT, Batch, Nested, Number, Table, Together

MAX_BATCH_REQUESTS = 1024

TABLES: Mapping[type[Message], Table] = {
    PredictBuildDurationRequest: {
        "tenant_id": TENANT,
        "build": Nested(required=True),
        "contribution_count": Number(0, 32),
    },
    BatchPredictBuildDurationsRequest: {"tenant_id": TENANT, "requests": Batch(MAX_BATCH_REQUESTS)},
    StreamBuildDurationPredictionsRequest: {"items": Batch(MAX_BATCH_REQUESTS, required=True)},
}
TOGETHER: Mapping[type[Message], Together] = {}
