"""How long a build will take: gather columns, run the model, check what it says, else fall back rung by rung.

Rungs: the tenant's model, the global model, recent builds (``history.py``), the pipeline's builds at training time, all
builds at training time. Each answer says which rung it stands on. One request is a batch of one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conductor_features.tables import RowTable
from conductor_rpc import names
from conductor_rpc.call import Call, Deadline
from conductor_rpc.exceptions import DeadlineTooShort, NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Estimate, Fallback, Method, Prediction, Variant
from conductor_server.prediction.columns import Question, entity
from conductor_server.prediction.contributions import contributions, variants
from conductor_server.prediction.gathering import FeaturesUsed, Inputs
from conductor_server.prediction.history import HISTORY_VIEWS, recent_history
from conductor_server.prediction.ports import Comparing, FeatureReader, ModelFailed, Models, QuantileModel, Route

PREDICTOR = "build-duration"
_LOG = logging.getLogger(__name__)

_Answer = Prediction | NoPrediction | DeadlineTooShort


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with who asks it."""

    tenant_id: str
    question: Question
    deadline: Deadline
    call: Call | None = None
    """What the time that it takes is told of."""


class BuildDurationPredictor:
    """Answers questions about builds."""

    def __init__(
        self, models: Models, features: FeatureReader, telemetry: Telemetry, comparing: Comparing | None = None
    ) -> None:
        self._models, self._features, self._telemetry, self._comparing = models, features, telemetry, comparing
        self._complained_of: set[str] = set()

    async def predict(self, asked: Sequence[Asked]) -> list[_Answer]:
        """Answers in the order of what is asked: one read of features for all, and one run per model.

        Whoever asks, each answer is made of its own tenant's rows and models only.
        """
        routes = [self._models.route(PREDICTOR, one.tenant_id, _entity(one.question)) for one in asked]
        groups: dict[int, list[int]] = {}
        for at, route in enumerate(routes):
            groups.setdefault(id(route), []).append(at)
        if len(groups) == 1:
            return await self._along(routes[0], asked)
        answers: list[_Answer] = [NoPrediction()] * len(asked)
        found = await asyncio.gather(
            *(self._along(routes[group[0]], [asked[at] for at in group]) for group in groups.values())
        )
        for group, of_group in zip(groups.values(), found, strict=True):
            for at, answer in zip(group, of_group, strict=True):
                answers[at] = answer
        return answers

    async def _along(self, route: Route, asked: Sequence[Asked]) -> list[_Answer]:
        entities = [[entity(view, one.tenant_id, one.question.build) for view in route.views] for one in asked]
        with self._telemetry.shared_stage(names.FEATURES_READ, _calls(asked)):
            table = await self._features.read(route.layout, entities)
        answers: list[Prediction | DeadlineTooShort | None] = [None] * len(asked)
        missing: list[tuple[str, ...]] = [()] * len(asked)
        for rung, (model, gatherer) in enumerate(zip(route.models, route.gatherers, strict=True)):
            for at, one in enumerate(asked):
                if answers[at] is None and one.deadline.remaining_seconds() < 0:
                    answers[at] = DeadlineTooShort()
            pending = [at for at, answer in enumerate(answers) if answer is None]
            if not pending:
                break
            asked_now = [asked[at] for at in pending]
            inputs = gatherer.gather([one.question for one in asked_now], table.take(pending))
            if rung == 0:
                for at, used in zip(pending, inputs.used, strict=True):
                    missing[at] = used.missing
            for at, found in zip(pending, await self._run(model, asked_now, inputs), strict=True):
                answers[at] = found
            if rung == 0 and route.beside is not None and self._comparing is not None:
                self._comparing.offer(
                    route,
                    [one.question for one in asked_now],
                    table.take(pending),
                    [_median(answers[at]) for at in pending],
                )
        return [
            self._counted(_labelled(route, answer or _fall_back(route, asked[at], table, at, missing[at])))
            for at, answer in enumerate(answers)
        ]

    async def _run(self, model: QuantileModel, asked: Sequence[Asked], inputs: Inputs) -> list[Prediction | None]:
        """The model's answers; None where it can't answer, or says what can't be one."""
        answers: list[Prediction | None] = [None] * len(asked)
        able: list[int] = np.flatnonzero(inputs.answerable).tolist()
        if not able:
            return answers
        # The rows, then the variants that explain them: it is one run.
        explained = [at for at in able if asked[at].question.contribution_count]
        made = variants(model.plan, inputs.inputs[explained])
        try:
            with self._telemetry.shared_stage(names.MODEL_RUN, _calls(asked)):
                outputs = await model.run(np.concatenate([inputs.inputs[able], made.rows]))
        except ModelFailed as error:
            if len(asked) > 1:  # one's row must not cost the others their answers
                alone = [await self._run(model, [one], inputs.take(at)) for at, one in enumerate(asked)]
                return [answer for [answer] in alone]
            self._complain(model, str(error))
            return answers
        for at, output in zip(able, outputs[: len(able)].tolist(), strict=True):
            answers[at] = _interpret(model, asked[at].question, inputs.used[at], output)
            if answers[at] is None:
                self._complain(model, f"it answered {output}")
        if explained:
            told = contributions(
                model.plan,
                inputs.values[explained],
                made,
                medians_seconds=outputs[np.searchsorted(able, explained), 1],
                variant_medians_seconds=outputs[len(able) :, 1],
                counts=[asked[at].question.contribution_count for at in explained],
            )
            for at, of_one in zip(explained, told, strict=True):
                answer = answers[at]
                if answer is not None:
                    answer.contributions = of_one
        return answers

    def _complain(self, model: QuantileModel, text: str) -> None:
        """Count each failure, log a version's first one: a log that grows with each request hides the rest."""
        self._telemetry.count(names.MODEL_FAILURES, {names.PREDICTOR: PREDICTOR})
        if model.label.version not in self._complained_of:
            self._complained_of.add(model.label.version)
            _LOG.error("%s %s failed, the next rung answers: %s", model.label.name, model.label.version, text)

    def _counted(self, answer: _Answer) -> _Answer:
        method = answer.method.value if isinstance(answer, Prediction) else "none"
        self._telemetry.count(names.PREDICTIONS, {names.PREDICTOR: PREDICTOR, names.PREDICTION_METHOD: method})
        return answer


def _interpret(
    model: QuantileModel, question: Question, used: FeaturesUsed, output: Sequence[float]
) -> Prediction | None:
    """What the model said, labelled; None if that can't be an answer."""
    # What an entity never had was never there in training either, and the calibration holds over that. What could not
    # be read is another matter: then the interval is given, and nothing is claimed for it.
    coverage = 0.0 if used.uncalibrated else model.coverage
    lower, median, upper = output
    estimate = Estimate.checked(lower, median, upper, coverage)
    if estimate is None:
        return None
    return Prediction(
        estimate=estimate,
        method=Method.MODEL_DEGRADED if used.degraded else Method.MODEL,
        model=model.label,
        oldest_feature_age_seconds=_age_seconds(question, used.oldest_us),
        missing_features=used.missing,
    )


def _labelled(route: Route, answer: _Answer) -> _Answer:
    """The answer, with the reason where it is not by the best model that there is for the tenant."""
    if not isinstance(answer, Prediction):
        return answer
    fallback = route.fallback
    if fallback is Fallback.NONE and route.models:
        by_model = answer.method in (Method.MODEL, Method.MODEL_DEGRADED)
        if not by_model or answer.model is not route.models[0].label:
            fallback = Fallback.MODEL_FAILED
        elif route.variant is not Variant.CHAMPION:
            return replace(answer, variant=route.variant)
    return answer if fallback is Fallback.NONE else replace(answer, fallback=fallback)


def _entity(question: Question) -> tuple[str, str, str]:
    build = question.build
    return build.repository, build.pipeline, build.branch


def _median(answer: Prediction | DeadlineTooShort | None) -> float | None:
    return answer.estimate.median_seconds if isinstance(answer, Prediction) else None


def _fall_back(
    route: Route, asked: Asked, table: RowTable, line: int, missing: tuple[str, ...]
) -> Prediction | NoPrediction:
    """The best answer without a model."""
    return next(_rungs(route, asked, table, line, missing), None) or NoPrediction()


def _rungs(route: Route, asked: Asked, table: RowTable, line: int, missing: tuple[str, ...]) -> Iterator[Prediction]:
    question = asked.question
    # The history views are the first of every route.
    rows = [table.row(line, view_at) for view_at in range(len(HISTORY_VIEWS))]
    for estimate, event_time_us in recent_history(question, rows):
        age = _age_seconds(question, event_time_us)
        yield Prediction(estimate, Method.HISTORY, oldest_feature_age_seconds=age, missing_features=missing)
    pipeline = (asked.tenant_id, question.build.repository, question.build.pipeline)
    for model in route.models:
        known = model.statistics.pipelines.get(pipeline)
        if known is not None:
            yield Prediction(known, Method.HISTORY, model.label, missing_features=missing)
    for model in route.models:
        if model.statistics.overall is not None:
            yield Prediction(model.statistics.overall, Method.DEFAULT, model.label, missing_features=missing)


def _calls(asked: Sequence[Asked]) -> list[Call]:
    """The calls that are asking, each once."""
    return list({id(one.call): one.call for one in asked if one.call is not None}.values())


def _age_seconds(question: Question, event_time_us: int | None) -> float | None:
    return None if event_time_us is None else max(0.0, (question.moment_us - event_time_us) / 1e6)
