"""The label that every answer carries, in the contract's terms."""

from __future__ import annotations

import random
import time
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.prediction.v1.provenance_pb2 import FallbackReason, PredictionMethod, Provenance
from conductor.prediction.v1.provenance_pb2 import Variant as VariantMessage
from conductor_server.prediction.answers import Fallback, Method, Origin, Variant

_SECOND = 1_000_000_000
_METHODS = {
    Method.MODEL: PredictionMethod.PREDICTION_METHOD_MODEL,
    Method.MODEL_DEGRADED: PredictionMethod.PREDICTION_METHOD_MODEL_DEGRADED,
    Method.HISTORY: PredictionMethod.PREDICTION_METHOD_HISTORY,
    Method.DEFAULT: PredictionMethod.PREDICTION_METHOD_DEFAULT,
}
_FALLBACKS = {
    Fallback.NONE: FallbackReason.FALLBACK_REASON_UNSPECIFIED,
    Fallback.MODEL_LOADING: FallbackReason.FALLBACK_REASON_MODEL_LOADING,
    Fallback.MODEL_UNAVAILABLE: FallbackReason.FALLBACK_REASON_MODEL_UNAVAILABLE,
    Fallback.MODEL_FAILED: FallbackReason.FALLBACK_REASON_MODEL_FAILED,
}
_VARIANTS = {
    Variant.CHAMPION: VariantMessage.VARIANT_CHAMPION,
    Variant.CANARY: VariantMessage.VARIANT_CANARY,
    Variant.CHALLENGER: VariantMessage.VARIANT_CHALLENGER,
}


@lru_cache(maxsize=256)
def common_provenance(origin: Origin) -> Provenance:
    """What answers of one origin have in common; to be copied, not changed."""
    model = origin.model
    provenance = Provenance(method=_METHODS[origin.method], fallback_reason=_FALLBACKS[origin.fallback])
    provenance.model_name, provenance.model_version, provenance.model_digest = model
    if model.name:
        provenance.variant = _VARIANTS[origin.variant]
    provenance.missing_features.extend(origin.missing_features)
    return provenance


def stamp(provenance: Provenance, oldest_feature_age_seconds: float | None) -> None:
    """Make it one answer's own: its id, its time, the age of what it rests on."""
    # Unique, and no secret.
    provenance.prediction_id = f"{random.getrandbits(128):032x}"
    set_seconds(provenance.prediction_time, time.time())
    if oldest_feature_age_seconds is not None:
        set_seconds(provenance.oldest_feature_age, oldest_feature_age_seconds)


def set_seconds(moment: Duration | Timestamp, seconds: float) -> None:
    """A third of the time of ``FromNanoseconds``, for the same."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds >= 0:
        moment.seconds, moment.nanos = divmod(nanoseconds, _SECOND)
    else:  # both parts of a negative duration are negative
        whole, rest = divmod(-nanoseconds, _SECOND)
        moment.seconds, moment.nanos = -whole, -rest
