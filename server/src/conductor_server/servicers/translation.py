"""Between the contract's messages and the domain's questions and answers."""

from __future__ import annotations

import math
import time
from functools import lru_cache

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest, PredictBuildDurationResponse
from conductor_server.prediction.answers import Origin, Prediction
from conductor_server.prediction.columns import Question
from conductor_server.servicers.provenance import common_provenance, set_seconds, stamp

_DEFAULT_CONTRIBUTIONS = 5


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
    set_seconds(response.duration, estimate.median_seconds)
    interval = response.interval
    set_seconds(interval.lower_duration, estimate.lower_seconds)
    set_seconds(interval.upper_duration, estimate.upper_seconds)
    interval.coverage = estimate.coverage
    stamp(response.provenance, prediction.oldest_feature_age_seconds)
    add = response.contributions.add
    for feature, value, effect in prediction.contributions:
        told = add()
        told.feature = feature
        if math.isfinite(value):
            told.value = value
        set_seconds(told.effect_duration, effect)


@lru_cache(maxsize=256)
def _labels(origin: Origin) -> PredictBuildDurationResponse:
    """What responses of one origin have in common: to copy it takes less time than to set each field."""
    return PredictBuildDurationResponse(provenance=common_provenance(origin))
