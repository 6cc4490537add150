"""How long a build will take: gather columns, ask the model, else fall back rung by rung.

Rungs: the tenant's model, the global model, recent builds (``history.py``), the pipeline's builds at training time, all
builds at training time. Each answer says which rung it stands on. One request is a batch of one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from conductor_features.tables import RowTable
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Call, Deadline, Stage
from conductor_rpc.exceptions import DeadlineTooShort, NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Fallback, Method, Origin, Prediction, Variant
from conductor_server.prediction.asking_models import AskingModels, each_once
from conductor_server.prediction.columns import Question, Subject, entity
from conductor_server.prediction.history import HISTORY_VIEWS, recent_history
from conductor_server.prediction.input_counts import InputCounts
from conductor_server.prediction.ports import Comparing, FeatureReader, Models, Route

PREDICTOR = "build-duration"
MODEL_SECONDS = 0.01
"""What a read of features leaves of the budget for the model and the answer on its way; of a small one half."""

_Answer = Prediction | NoPrediction | DeadlineTooShort


class Asked(NamedTuple):
    """A question with who asks it."""

    tenant_id: str
    question: Question
    deadline: Deadline
    call: Call | None = None
    """What the time that it takes is told of."""
    waiting: Stage | None = None
    """That of waiting for its batch."""


class BuildDurationPredictor:
    """Answers questions about builds."""

    def __init__(
        self, models: Models, features: FeatureReader, telemetry: Telemetry, comparing: Comparing | None = None
    ) -> None:
        self._models, self._features, self._telemetry, self._comparing = models, features, telemetry, comparing
        self._asking = AskingModels(PREDICTOR, telemetry)
        self._inputs = InputCounts(PREDICTOR, telemetry)

    def hurry(self, one: Asked) -> Deadline | None:
        """When the read of features must be given up for who can't wait as long as it may take; else None."""
        until = self._read_until(one.deadline, time.monotonic())
        return None if until is NO_DEADLINE else until

    async def predict(self, asked: Sequence[Asked]) -> list[_Answer]:
        """Answers in the order of what is asked: one read of features for all, and one run per model.

        Whoever asks, each answer is made of its own tenant's rows and models only.
        """
        subjects = [Subject.of(one.tenant_id, one.question.build) for one in asked]
        routes = [self._models.route(PREDICTOR, subject.tenant_id, subject[1:]) for subject in subjects]
        now = time.monotonic()
        groups: dict[tuple[int, Deadline], list[int]] = {}
        for at, (route, one) in enumerate(zip(routes, asked, strict=True)):
            # Who is in a hurry goes alone: the others need not do without the features that it can't wait for.
            groups.setdefault((id(route), self._read_until(one.deadline, now)), []).append(at)
        if len(groups) == 1:
            [(_, read_until)] = groups
            return self._counted(await self._along(routes[0], asked, subjects, read_until))
        answers: list[_Answer] = [NoPrediction()] * len(asked)
        found = await asyncio.gather(
            *(
                self._along(routes[group[0]], [asked[at] for at in group], [subjects[at] for at in group], read_until)
                for (_, read_until), group in groups.items()
            )
        )
        for group, of_group in zip(groups.values(), found, strict=True):
            for at, answer in zip(group, of_group, strict=True):
                answers[at] = answer
        return self._counted(answers)

    async def _along(
        self, route: Route, asked: Sequence[Asked], subjects: Sequence[Subject], read_until: Deadline
    ) -> list[_Answer]:
        table = await self._read(route, asked, subjects, read_until)
        nobody_waits = max((one.deadline for one in asked), key=lambda deadline: deadline.time)
        answers: list[Prediction | DeadlineTooShort | None] = [None] * len(asked)
        missing: list[tuple[str, ...]] = [()] * len(asked)
        for rung, (model, gatherer) in enumerate(zip(route.models, route.gatherers, strict=True)):
            now = time.monotonic()
            for at, one in enumerate(asked):
                if answers[at] is None and one.deadline.time < now:
                    answers[at] = DeadlineTooShort()
            pending = [at for at, answer in enumerate(answers) if answer is None]
            if not pending:
                break
            asked_now = [asked[at] for at in pending]
            questions = [one.question for one in asked_now]
            rows = table if len(pending) == len(asked) else table.take(pending)
            inputs = gatherer.gather(questions, rows)
            calls = [one.call for one in asked_now]
            by_model = await self._asking.ask(model, questions, inputs, calls, nobody_waits)
            if rung == 0:
                self._inputs.add(inputs.used)
                for at, used in zip(pending, inputs.used, strict=True):
                    missing[at] = used.missing
            for at, found in zip(pending, by_model, strict=True):
                answers[at] = found
            if rung == 0 and route.beside is not None and self._comparing is not None:
                self._comparing.offer(route, questions, rows, [_median(answers[at]) for at in pending])
        return [
            _labelled(route, answer or _fall_back(route, asked[at], table, at, missing[at]))
            for at, answer in enumerate(answers)
        ]

    def _read_until(self, deadline: Deadline, now: float) -> Deadline:
        """When a read of features is given up: in time for the model. Never where the reader's own limit is first."""
        in_time = deadline.time - min(MODEL_SECONDS, (deadline.time - now) / 2)
        return NO_DEADLINE if in_time >= now + self._features.longest_seconds else Deadline(in_time)

    async def _read(
        self, route: Route, asked: Sequence[Asked], subjects: Sequence[Subject], until: Deadline
    ) -> RowTable:
        """The feature rows of each question: builds of one branch have the same."""
        lines = {subject: line for line, subject in enumerate(dict.fromkeys(subjects))}
        entities = [[entity(view, subject) for view in route.views] for subject in lines]
        with self._telemetry.shared_stage(names.FEATURES_READ, each_once([one.call for one in asked])):
            table = await self._features.read(route.layout, entities, until)
        return table.take([lines[subject] for subject in subjects])

    def _counted(self, answers: list[_Answer]) -> list[_Answer]:
        methods = Counter(answer.origin.method if isinstance(answer, Prediction) else "none" for answer in answers)
        for method, count in methods.items():
            attributes = {names.PREDICTOR: PREDICTOR, names.PREDICTION_METHOD: str(method)}
            self._telemetry.count(names.PREDICTIONS, attributes, count)
        return answers


def _labelled(route: Route, answer: _Answer) -> _Answer:
    """The answer, with the reason where it is not by the best model that there is for the tenant."""
    if not isinstance(answer, Prediction):
        return answer
    origin, fallback = answer.origin, route.fallback
    if fallback is Fallback.NONE and route.models:
        by_model = origin.method in (Method.MODEL, Method.MODEL_DEGRADED)
        if not by_model or origin.model is not route.models[0].label:
            fallback = Fallback.MODEL_FAILED
        elif route.variant is not Variant.CHAMPION:
            answer.origin = origin._replace(variant=route.variant)
    if fallback is not Fallback.NONE:
        answer.origin = origin._replace(fallback=fallback)
    return answer


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
        origin = Origin(Method.HISTORY, missing_features=missing)
        yield Prediction(estimate, origin, question.seconds_since(event_time_us))
    pipeline = (asked.tenant_id, question.build.repository, question.build.pipeline)
    for model in route.models:
        known = model.statistics.pipelines.get(pipeline)
        if known is not None:
            yield Prediction(known, Origin(Method.HISTORY, model.label, missing))
    for model in route.models:
        if model.statistics.overall is not None:
            yield Prediction(model.statistics.overall, Origin(Method.DEFAULT, model.label, missing))
