"""Names of spans, metrics and their attributes, in one place.

Where OpenTelemetry's semantic conventions have a name, it is theirs. Attribute values are bounded: methods, codes,
stages, prediction methods and predictors; never a tenant's or an entity's id.
"""

from __future__ import annotations

from typing import Final

# Stages: spans, and the value of STAGE on the stage histogram.
AUTH: Final = "auth"
ADMISSION: Final = "admission"
FEATURES_READ: Final = "features.read"
MODEL_RUN: Final = "model.run"

# Metrics.
RPC_SERVER_CALL_DURATION: Final = "rpc.server.call.duration"
STAGE_DURATION: Final = "conductor.stage.duration"
PREDICTIONS: Final = "conductor.predictions"
MODEL_SWAPS: Final = "conductor.model.swaps"
MODEL_REFUSALS: Final = "conductor.model.refusals"
MODEL_FAILURES: Final = "conductor.model.failures"
MODEL_LOAD_DURATION: Final = "conductor.model.load.duration"
MODEL_HITS: Final = "conductor.model.hits"
MODEL_MISSES: Final = "conductor.model.misses"
MODEL_EVICTIONS: Final = "conductor.model.evictions"
VARIANT_DIFFERENCE: Final = "conductor.model.variant.difference"
VARIANT_FAILURES: Final = "conductor.model.variant.failures"
VARIANT_DROPS: Final = "conductor.model.variant.drops"
CANARY_WITHDRAWALS: Final = "conductor.model.canary.withdrawals"
MODELS_RESIDENT: Final = "conductor.models.resident"
MODELS_RESIDENT_MEMORY: Final = "conductor.models.resident.memory"
MODELS_KNOWN: Final = "conductor.models.known"
FEATURE_READ_FAILURES: Final = "conductor.feature_read.failures"
CONCURRENCY_LIMIT: Final = "conductor.admission.limit"
"""Places for calls, now."""
IN_FLIGHT: Final = "conductor.admission.in_flight"
"""How many of them are taken: one by most calls, more by batches."""
REFUSALS: Final = "conductor.admission.refusals"
"""By REASON and CRITICALITY_CLASS."""

# Attributes.
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"
STAGE: Final = "conductor.stage"
PREDICTION_METHOD: Final = "conductor.prediction.method"
PREDICTOR: Final = "conductor.predictor"
REASON: Final = "conductor.reason"
VARIANT: Final = "conductor.variant"
CRITICALITY_CLASS: Final = "conductor.criticality"

# Attributes of spans only: values may be unbounded.
PREDICTION_ID: Final = "conductor.prediction.id"
MODEL_NAME: Final = "conductor.model.name"
MODEL_VERSION: Final = "conductor.model.version"
FALLBACK_REASON: Final = "conductor.fallback.reason"
STAGE_UNFINISHED: Final = "conductor.stage.unfinished"
"""The call did not wait for its end."""
KEPT_FOR: Final = "conductor.trace.kept"
"""Why a trace would be kept even if no sampler had chosen it."""

# Values of KEPT_FOR.
FAULT: Final = "fault"
FALLBACK: Final = "fallback"
SLOW: Final = "slow"
REASONS_TO_KEEP: Final = (FAULT, FALLBACK, SLOW)

GRPC: Final = "grpc"

# Edges in seconds. 0.1 is the budget of one prediction, so it is an edge: the share within it is read off exactly.
DURATION_BUCKETS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

# Edges of |ln(one answer / another)|: 0.01 is about one per cent.
DIFFERENCE_BUCKETS: Final = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

# gRPC metadata.
CRITICALITY: Final = "conductor-criticality"
"""``interactive`` or ``batch``, which is refused first. Absent: batches are batch work, all else is interactive."""
AUTHORIZATION: Final = "authorization"
SERVER_TIMING: Final = "server-timing"
"""A caller that sends it (with any value) gets a trailing ``server-timing`` header: stages with milliseconds."""
