"""Between the contract's messages and the domain's questions and answers."""

from __future__ import annotations

import math
import random
import time

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest, PredictBuildDurationResponse
from conductor.prediction.v1.provenance_pb2 import FallbackReason, PredictionMethod
from conductor.prediction.v1.provenance_pb2 import Variant as VariantMessage
from conductor_server.prediction.answers import Fallback, Method, Prediction, Variant
from conductor_server.prediction.columns import Question

_DEFAULT_CONTRIBUTIONS = 5
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
    count = request.contribution_count if request.HasField("contribution_count") else _DEFAULT_CONTRIBUTIONS
    return Question(build, build.queued_time.ToMicroseconds(), named, count)


def to_response(prediction: Prediction) -> PredictBuildDurationResponse:
    """The answer with all of its labels and an id of its own."""
    response = PredictBuildDurationResponse()
    estimate = prediction.estimate
    _set(response.duration, estimate.median_seconds)
    interval = response.interval
    _set(interval.lower_duration, estimate.lower_seconds)
    _set(interval.upper_duration, estimate.upper_seconds)
    interval.coverage = estimate.coverage
    provenance = response.provenance
    # Unique, and no secret.
    provenance.prediction_id = f"{random.getrandbits(128):032x}"
    provenance.method = _METHODS[prediction.method]
    if prediction.fallback is not Fallback.NONE:
        provenance.fallback_reason = _FALLBACKS[prediction.fallback]
    model = prediction.model
    if model.name:
        provenance.variant = _VARIANTS[prediction.variant]
    provenance.model_name = model.name
    provenance.model_version = model.version
    provenance.model_digest = model.digest
    if prediction.missing_features:
        provenance.missing_features.extend(prediction.missing_features)
    _set(provenance.prediction_time, time.time())
    if prediction.oldest_feature_age_seconds is not None:
        _set(provenance.oldest_feature_age, prediction.oldest_feature_age_seconds)
    for contribution in prediction.contributions:
        told = response.contributions.add(feature=contribution.feature)
        if math.isfinite(contribution.value):
            told.value = contribution.value
        _set(told.effect_duration, contribution.effect_seconds)
    return response


def _set(moment: Duration | Timestamp, seconds: float) -> None:
    """A third of the time of ``FromNanoseconds``, for the same."""
    nanoseconds = round(seconds * 1e9)
    # A negative duration has both parts negative.
    whole, rest = divmod(abs(nanoseconds), 1_000_000_000)
    moment.seconds, moment.nanos = (whole, rest) if nanoseconds >= 0 else (-whole, -rest)
