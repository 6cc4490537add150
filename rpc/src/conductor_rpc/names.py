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
RECEIVE: Final = "receive"
"""From gRPC's handing a call over until it is begun with: its message comes and is decoded, and while the event loop is
busy, its turn. A span only."""
ITEM_WAIT: Final = "item.wait"
"""From a message's coming until there was a place in its stream for the item, before the item's call begins: who sends
many at once, or does not read, waits for himself. A span only."""
COALESCE_WAIT: Final = "coalesce.wait"
"""From a question's being asked until the batch that it is answered in begins. A span only."""
COALESCE_RESUME: Final = "coalesce.resume"
"""From a batch's answers being there until the turn of the call that one is for. A span only."""
MODEL_RUN_TOGETHER: Final = "model.run_together"
"""The runs of all models that a batch asks, where they are several: each call waits for all, and has its own in
``model.run``. A span only."""
BATCH_CHECK: Final = "batch.check"
BATCH_ANSWER: Final = "batch.answer"
"""Checking the items of a batch, and writing their answers. Spans only."""
DIFF_READ: Final = "diff.read"
TESTS_ANSWER: Final = "tests.answer"
"""Reading a run's change, and writing the answer about its tests. Spans only."""
TESTS_JUDGE: Final = "tests.judge"
"""All that follows from what was read of a run's tests, the model's run included; beside the event loop where they are
many, and then from before a thread was free. A span only."""
AUDIT: Final = "audit"
"""Writing to the audit log."""
INGEST_CONNECTION: Final = "ingest.connection"
INGEST_PARSE: Final = "ingest.parse"
INGEST_LOCK: Final = "ingest.lock"
INGEST_GATE: Final = "ingest.gate"
INGEST_STORE: Final = "ingest.store"
INGEST_FEATURES: Final = "ingest.features"
INGEST_COMMIT: Final = "ingest.commit"

# Spans of what held up the whole process while a call was under way.
EVENT_LOOP_STALL: Final = "event_loop.stall"
GC_PAUSE: Final = "gc.pause"

# Spans of what the process did beside, while a call was under way: the call did not wait for it.
MODEL_COMPARE: Final = "model.compare"
"""A shadow, or what stands beside a canary or a challenger, was asked what somebody had asked before."""

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
DROPPED: Final = "conductor.admission.dropped"
"""Calls that gRPC itself refused, or let expire, before anybody here saw them."""
FEATURE_READS: Final = "conductor.feature_read.reads"
FEATURE_READ_KEYS: Final = "conductor.feature_read.keys"
FEATURE_READ_TIMEOUTS: Final = "conductor.feature_read.timeouts"
FEATURE_READ_DISCONNECTS: Final = "conductor.feature_read.disconnects"
FEATURE_READ_BAD_VALUES: Final = "conductor.feature_read.bad_values"
ONLINE_STORE_CONNECTED: Final = "conductor.online_store.connected"
INPUT_ROWS: Final = "conductor.model.input.rows"
INPUT_MISSING: Final = "conductor.model.input.missing"
INGEST_EVENTS: Final = "conductor.ingest.events"
INGEST_FEATURE_ROWS: Final = "conductor.ingest.feature_rows"
ONLINE_DELAY: Final = "conductor.online.delay"
ONLINE_BEHIND: Final = "conductor.online.behind"
ONLINE_ROWS: Final = "conductor.online.rows"
EVENT_LOOP_STALLED: Final = "conductor.event_loop.stalled"
GC_PAUSED: Final = "conductor.gc.paused"
SPANS_EXPORTED: Final = "conductor.telemetry.spans.exported"
SPANS_LOST: Final = "conductor.telemetry.spans.lost"
TLS_CERTIFICATE_EXPIRY: Final = "conductor.tls.certificate.expiry"
JWKS_AGE: Final = "conductor.jwks.age"

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
OUTCOME: Final = "conductor.outcome"
FEATURE: Final = "conductor.feature"
VIEW: Final = "conductor.view"

# Attributes of spans only: values may be unbounded.
TENANT_ID: Final = "conductor.tenant.id"
ERROR_REASON: Final = "conductor.error.reason"
"""As the caller is told, in ErrorInfo."""
DEADLINE_SECONDS: Final = "conductor.deadline.seconds"
"""What was left when the call came."""
PREDICTION_ID: Final = "conductor.prediction.id"
MODEL_NAME: Final = "conductor.model.name"
MODEL_VERSION: Final = "conductor.model.version"
MODEL_FAILURE: Final = "conductor.model.failure"
"""Which model did not answer, and what was wrong."""
MODEL_ROWS: Final = "conductor.model.rows"
"""How many it was run on."""
EXPLAINING_ROWS: Final = "conductor.model.rows.explaining"
"""How many of them only tell what moved the answers."""
MODEL_COUNT: Final = "conductor.model.count"
FALLBACK_REASON: Final = "conductor.fallback.reason"
FEATURES_MISSING: Final = "conductor.features.missing"
"""How many of the model's features the answer had to do without, and the first of them."""
ANSWERED_TOGETHER: Final = "conductor.answered_together"
"""How many questions, whoever's, were answered at once."""
METHODS: Final = "conductor.prediction.methods"
"""Of a batch: how many of its answers were found in each way."""
MODELS: Final = "conductor.models.used"
"""Of a batch: the models that answered, the most frequent first."""
STAGE_UNFINISHED: Final = "conductor.stage.unfinished"
"""The call did not wait for its end."""
KEPT_FOR: Final = "conductor.trace.kept"
"""Why a trace would be kept even if no sampler had chosen it."""

# Values of KEPT_FOR.
FAULT: Final = "fault"
FALLBACK: Final = "fallback"
SLOW: Final = "slow"
REFUSED: Final = "refused"
LOGGED: Final = "logged"
"""Somebody wrote its id to the log."""
REASONS_TO_KEEP: Final = (FAULT, FALLBACK, SLOW, REFUSED, LOGGED)

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
