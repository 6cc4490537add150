"""Responses and explanations are what a straightforward construction gives, whatever is shared on the way."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.prediction.v1.build_duration_pb2 import DurationInterval, PredictBuildDurationResponse
from conductor.prediction.v1.provenance_pb2 import FallbackReason, PredictionMethod, Variant
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.telemetry import OFF
from conductor_server.prediction import answers
from conductor_server.prediction.answers import NO_MODEL, Contribution, Estimate, ModelLabel, Origin, Prediction
from conductor_server.prediction.asked import Asked
from conductor_server.prediction.asking_models import AskingModels
from conductor_server.prediction.columns import Question
from conductor_server.prediction.gathering import FeaturesUsed, Inputs
from conductor_server.servicers.translation import to_response

SECONDS = st.floats(0, answers.LONGEST_SECONDS)
SIGNED = st.floats(-answers.LONGEST_SECONDS, answers.LONGEST_SECONDS)
LABELS = [NO_MODEL, ModelLabel("models/p/global", "v1", "d1"), ModelLabel("models/p/tenants/t", "v2", "d2")]
ORIGINS = st.builds(
    Origin,
    st.sampled_from(answers.Method),
    st.sampled_from(
        [NO_MODEL, ModelLabel("models/p/global", "v1", "d1"), ModelLabel("models/p/tenants/t", "v2", "d2")]
    ),
    st.lists(st.sampled_from(["a.b", "a.c"]), unique=True).map(tuple),
    st.sampled_from(answers.Fallback),
    st.sampled_from([variant for variant in answers.Variant if variant is not answers.Variant.SHADOW]),
)
PREDICTIONS = st.builds(
    Prediction,
    st.builds(Estimate, SECONDS, SECONDS, SECONDS, st.floats(0, 1)),
    ORIGINS,
    st.none() | SECONDS,
    st.lists(st.builds(Contribution, st.sampled_from("xyz"), st.floats(), SIGNED), max_size=4),
)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _plainly(prediction: Prediction) -> PredictBuildDurationResponse:
    estimate, origin, response = prediction.estimate, prediction.origin, PredictBuildDurationResponse()
    response.duration.CopyFrom(_duration(estimate.median_seconds))
    response.interval.CopyFrom(
        DurationInterval(
            lower_duration=_duration(estimate.lower_seconds),
            upper_duration=_duration(estimate.upper_seconds),
            coverage=estimate.coverage,
        )
    )
    provenance = response.provenance
    provenance.method = PredictionMethod.Value(f"PREDICTION_METHOD_{origin.method.name}")
    if origin.fallback is not answers.Fallback.NONE:
        provenance.fallback_reason = FallbackReason.Value(f"FALLBACK_REASON_{origin.fallback.name}")
    if origin.model.name:
        provenance.variant = Variant.Value(f"VARIANT_{origin.variant.name}")
    provenance.model_name = origin.model.name
    provenance.model_version = origin.model.version
    provenance.model_digest = origin.model.digest
    provenance.missing_features[:] = origin.missing_features
    if prediction.oldest_feature_age_seconds is not None:
        provenance.oldest_feature_age.CopyFrom(_duration(prediction.oldest_feature_age_seconds))
    for feature, value, effect in prediction.contributions:
        told = response.contributions.add(feature=feature, effect_duration=_duration(effect))
        if math.isfinite(value):
            told.value = value
    return response


@given(st.lists(PREDICTIONS, max_size=5))
def test_a_response_is_the_prediction_field_by_field(predictions: list[Prediction]) -> None:
    responses = [to_response(prediction) for prediction in predictions]
    assert len({response.provenance.prediction_id for response in responses}) == len(responses)
    for prediction, response in zip(predictions, responses, strict=True):
        assert len(response.provenance.prediction_id) == 32
        assert response.provenance.prediction_time.seconds > 1_700_000_000
        response.provenance.ClearField("prediction_id")
        response.provenance.ClearField("prediction_time")
        expected = _plainly(prediction)
        assert response.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


NAMES = ("a", "b", "c")
TYPICAL = np.array([1.0, 2.0, math.nan], np.float32)
WEIGHTS = np.array([3.0, -5.0, 7.0])


class _Linear:
    """A model whose median is 100 and the weighted columns, missing ones as 0; counts the rows that it is given."""

    label, coverage = ModelLabel("models/p/global", "v", "d"), 0.9
    plan: Any = SimpleNamespace(names=NAMES, typical=TYPICAL)

    def __init__(self) -> None:
        self.row_count = 0

    async def run(self, inputs: np.ndarray, until: Deadline) -> np.ndarray:
        self.row_count += len(inputs)
        median = 100 + np.nan_to_num(inputs.astype(np.float64)) @ WEIGHTS
        return np.stack([median / 2, median, median * 2], axis=1)


def _ask(model: Any, questions: list[Question], inputs: Inputs) -> list[Prediction | None]:
    asked = [Asked("acme", question, NO_DEADLINE) for question in questions]
    return asyncio.run(AskingModels("p", OFF).ask([model] * len(questions), asked, inputs))


LEVELS = st.sampled_from([1.0, 2.0, 3.5, -30.0, math.nan, 1e35])
ROWS = st.lists(st.tuples(st.tuples(LEVELS, LEVELS, LEVELS), st.integers(0, 4), st.booleans()), min_size=1, max_size=12)


@given(ROWS)
def test_rows_that_are_equal_are_run_once_and_each_answer_is_its_own(rows: list[Any]) -> None:
    values = np.array([levels for levels, _, _ in rows])
    used = [FeaturesUsed((), False, False, None)] * len(rows)
    inputs = Inputs(values, values.astype(np.float32), np.array([able for _, _, able in rows]), used)
    questions = [Question(BuildContext(), 0, False, count) for _, count, _ in rows]
    found = _ask(_Linear(), questions, inputs)
    for at, ((levels, count, able), answer) in enumerate(zip(rows, found, strict=True)):
        filled = [0.0 if math.isnan(level) else float(np.float32(level)) for level in levels]
        median = 100 + sum(weight * level for weight, level in zip(WEIGHTS, filled, strict=True))
        if not able or not 0 < median <= answers.LONGEST_SECONDS:
            assert answer is None, at
            continue
        assert answer is not None
        assert answer.estimate.median_seconds == np.float64(median)
        effects = [
            (name, level, weight * (now - typical))
            for name, level, weight, now, typical in zip(NAMES, levels, WEIGHTS, filled, TYPICAL.tolist(), strict=True)
            if not math.isnan(typical) and now != typical
        ]
        effects.sort(key=lambda effect: -abs(effect[2]))
        assert [(told.feature, told.effect) for told in answer.contributions] == [
            (name, effect) for name, _, effect in effects[:count]
        ]
        assert [str(told.value) for told in answer.contributions] == [str(level) for _, level, _ in effects[:count]]


def test_equal_rows_cost_one_run() -> None:
    values = np.array([[1.0, 5.0, 0.0]] * 10 + [[1.0, 2.0, 0.0]])
    inputs = Inputs(values, values.astype(np.float32), np.full(11, True), [FeaturesUsed((), False, False, None)] * 11)
    model = _Linear()
    found = _ask(model, [Question(BuildContext(), 0, False, 5)] * 11, inputs)
    assert model.row_count == 3  # two rows, and a variant of the first in its second column
    assert [len(answer.contributions) for answer in found if answer is not None] == [1] * 10 + [0]


def test_a_variant_that_can_not_be_a_build_explains_nothing() -> None:
    model: Any = _Linear()
    model.plan = SimpleNamespace(names=NAMES, typical=np.array([1e30, 2.0, math.nan], np.float32))
    values = np.array([[1.0, 3.0, 0.0]])
    inputs = Inputs(values, values.astype(np.float32), np.array([True]), [FeaturesUsed((), False, False, None)])
    [answer] = _ask(model, [Question(BuildContext(), 0, False, 5)], inputs)
    assert answer is not None
    assert [told.feature for told in answer.contributions] == ["b"]
    assert to_response(answer).contributions[0].effect_duration.seconds == -5
