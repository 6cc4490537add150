"""Between the contract's messages and the domain's questions and answers."""

from __future__ import annotations

import math
import random
import time
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest, PredictBuildDurationResponse
from conductor.prediction.v1.provenance_pb2 import FallbackReason, PredictionMethod
from conductor.prediction.v1.provenance_pb2 import Variant as VariantMessage
from conductor_server.prediction.answers import Fallback, Method, Origin, Prediction, Variant
from conductor_server.prediction.columns import Question

_DEFAULT_CONTRIBUTIONS = 5
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


def to_question(request: PredictBuildDurationRequest) -> Question:
    """The question that a valid request asks. A build without a queued time is queued now."""
    build = request.build
    named = build.HasField("queued_time")
    if not named:
        build.queued_time.FromMicroseconds(time.time_ns() // 1000)
    queued = build.queued_time
    count = request.contribution_count if request.HasField("contribution_count") else _DEFAULT_CONTRIBUTIONS
    return Question(build, queued.seconds * 1_000_000 + queued.nanos // 1000, named, count)


def to_response(prediction: Prediction) -> PredictBuildDurationResponse:
    """The answer with all of its labels and an id of its own."""
    response = PredictBuildDurationResponse()
    fill(response, prediction)
    return response


def fill(response: PredictBuildDurationResponse, prediction: Prediction) -> None:
    """Make an empty response the answer, in place: no copy for each item of a batch."""
    response.CopyFrom(_labels(prediction.origin))
    estimate = prediction.estimate
    _set(response.duration, estimate.median_seconds)
    interval = response.interval
    _set(interval.lower_duration, estimate.lower_seconds)
    _set(interval.upper_duration, estimate.upper_seconds)
    interval.coverage = estimate.coverage
    provenance = response.provenance
    # Unique, and no secret.
    provenance.prediction_id = f"{random.getrandbits(128):032x}"
    _set(provenance.prediction_time, time.time())
    if prediction.oldest_feature_age_seconds is not None:
        _set(provenance.oldest_feature_age, prediction.oldest_feature_age_seconds)
    add = response.contributions.add
    for feature, value, effect_seconds in prediction.contributions:
        told = add()
        told.feature = feature
        if math.isfinite(value):
            told.value = value
        _set(told.effect_duration, effect_seconds)


@lru_cache(maxsize=256)
def _labels(origin: Origin) -> PredictBuildDurationResponse:
    """What responses of one origin have in common: to copy it takes less time than to set each field."""
    response = PredictBuildDurationResponse()
    provenance, model = response.provenance, origin.model
    provenance.method = _METHODS[origin.method]
    provenance.fallback_reason = _FALLBACKS[origin.fallback]
    provenance.model_name, provenance.model_version, provenance.model_digest = model
    if model.name:
        provenance.variant = _VARIANTS[origin.variant]
    provenance.missing_features.extend(origin.missing_features)
    return response


def _set(moment: Duration | Timestamp, seconds: float) -> None:
    """A third of the time of ``FromNanoseconds``, for the same."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds >= 0:
        moment.seconds, moment.nanos = divmod(nanoseconds, _SECOND)
    else:  # both parts of a negative duration are negative
        whole, rest = divmod(-nanoseconds, _SECOND)
        moment.seconds, moment.nanos = -whole, -rest
