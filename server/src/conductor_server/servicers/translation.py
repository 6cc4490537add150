"""Between the contract's messages and the domain's questions and answers."""

from __future__ import annotations

import math
import time
import uuid

from google.protobuf.duration_pb2 import Duration

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest, PredictBuildDurationResponse
from conductor.prediction.v1.provenance_pb2 import PredictionMethod
from conductor_server.prediction.answers import Method, Prediction
from conductor_server.prediction.columns import Question

_DEFAULT_CONTRIBUTIONS = 5
_METHODS = {
    Method.MODEL: PredictionMethod.PREDICTION_METHOD_MODEL,
    Method.MODEL_DEGRADED: PredictionMethod.PREDICTION_METHOD_MODEL_DEGRADED,
    Method.HISTORY: PredictionMethod.PREDICTION_METHOD_HISTORY,
    Method.DEFAULT: PredictionMethod.PREDICTION_METHOD_DEFAULT,
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
    _set(response.interval.lower_duration, estimate.lower_seconds)
    _set(response.interval.upper_duration, estimate.upper_seconds)
    response.interval.coverage = estimate.coverage
    provenance = response.provenance
    provenance.prediction_id = uuid.uuid4().hex
    provenance.method = _METHODS[prediction.method]
    provenance.model_name = prediction.model.name
    provenance.model_version = prediction.model.version
    provenance.model_digest = prediction.model.digest
    provenance.missing_features.extend(prediction.missing_features)
    provenance.prediction_time.FromNanoseconds(time.time_ns())
    if prediction.oldest_feature_age_seconds is not None:
        _set(provenance.oldest_feature_age, prediction.oldest_feature_age_seconds)
    for contribution in prediction.contributions:
        told = response.contributions.add(feature=contribution.feature)
        if math.isfinite(contribution.value):
            told.value = contribution.value
        _set(told.effect_duration, contribution.effect_seconds)
    return response


def _set(duration: Duration, seconds: float) -> None:
    duration.FromNanoseconds(round(seconds * 1e9))
