"""How long a build will take: gather columns, ask the model, else fall back rung by rung.

Rungs: the tenant's model, the global model, then what is known without a model (``without_model.py``). Each answer says
which rung it stands on. What is asked together is worked on together, whoever asks and whichever model answers: only a
model's run is its own. One request is a batch of one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from conductor_features.tables import RowTable, TableLayout
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.exceptions import DeadlineTooShort, NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import Fallback, Method, Prediction, Variant
from conductor_server.prediction.asked import Asked, calls_of
from conductor_server.prediction.asking_models import AskingModels
from conductor_server.prediction.columns import Subject, entity
from conductor_server.prediction.gathering import Gatherer
from conductor_server.prediction.input_counts import InputCounts
from conductor_server.prediction.ports import Comparing, FeatureReader, Models, Route
from conductor_server.prediction.side_by_side import side_by_side
from conductor_server.prediction.without_model import without_model

PREDICTOR = "build-duration"
MODEL_SECONDS = 0.01
"""What a read of features leaves of the budget for the model and the answer on its way; of a small one half."""

_Answer = Prediction | NoPrediction | DeadlineTooShort


@dataclass(slots=True)
class _Open:
    """A question on its way down the rungs."""

    asked: Asked
    subject: Subject
    route: Route
    line: int = 0
    """Of its feature rows."""
    answer: _Answer | None = None
    missing: tuple[str, ...] = ()
    """What the first model could not have."""


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
        """Answers in the order of what is asked.

        Whoever asks, each answer is made of its own tenant's rows and models only.
        """
        now = time.monotonic()
        opened: list[_Open] = []
        together: dict[tuple[TableLayout, Deadline], list[_Open]] = {}
        for one in asked:
            subject = Subject.of(one.tenant_id, one.question.build)
            route = self._models.route(PREDICTOR, subject.tenant_id, subject[1:])
            opened.append(_Open(one, subject, route))
            # Who is in a hurry goes alone: the others need not do without the features that it can't wait for.
            together.setdefault((route.layout, self._read_until(one.deadline, now)), []).append(opened[-1])
        await side_by_side([self._answer(group, layout, until) for (layout, until), group in together.items()])
        answers = [_labelled(one.route, one.answer or NoPrediction()) for one in opened]
        self._count(answers)
        return answers

    async def _answer(self, group: Sequence[_Open], layout: TableLayout, read_until: Deadline) -> None:
        """Answer questions whose feature rows are laid out alike: with one read, then rung by rung."""
        table = await self._read(group, layout, read_until)
        for rung in range(max(len(one.route.models) for one in group)):
            now = time.monotonic()
            alike: dict[Gatherer, list[_Open]] = {}
            for one in group:
                if one.answer is not None or rung >= len(one.route.models):
                    continue
                if one.asked.deadline.time < now:
                    one.answer = DeadlineTooShort()
                else:
                    alike.setdefault(one.route.gatherers[rung], []).append(one)
            await side_by_side([self._ask(rung, gatherer, asking, table) for gatherer, asking in alike.items()])
        for one in group:
            if one.answer is None:
                one.answer = next(without_model(one.asked, one.route, table, one.line, one.missing), None)

    async def _ask(self, rung: int, gatherer: Gatherer, asking: Sequence[_Open], table: RowTable) -> None:
        """Ask the model that each has on a rung; they all take the same columns."""
        asked = [one.asked for one in asking]
        rows = table.take([one.line for one in asking])
        inputs = gatherer.gather([one.question for one in asked], rows)
        answers = await self._asking.ask([one.route.models[rung] for one in asking], asked, inputs)
        for one, answer in zip(asking, answers, strict=True):
            one.answer = answer
        if rung == 0:
            self._inputs.add(inputs.used)
            for one, used in zip(asking, inputs.used, strict=True):
                one.missing = used.missing
            self._offer(asking, rows)

    def _offer(self, asking: Sequence[_Open], rows: RowTable) -> None:
        """Let what stands beside a route be asked the same afterwards."""
        if self._comparing is None:
            return
        by_route: dict[int, list[int]] = {}
        for at, one in enumerate(asking):
            if one.route.beside is not None:
                by_route.setdefault(id(one.route), []).append(at)
        for lines in by_route.values():
            compared = [asking[at] for at in lines]
            questions, medians = [one.asked.question for one in compared], [_median(one.answer) for one in compared]
            self._comparing.offer(compared[0].route, questions, rows.take(lines), medians)

    def _read_until(self, deadline: Deadline, now: float) -> Deadline:
        """When a read of features is given up: in time for the model. Never where the reader's own limit is first."""
        in_time = deadline.time - min(MODEL_SECONDS, (deadline.time - now) / 2)
        return NO_DEADLINE if in_time >= now + self._features.longest_seconds else Deadline(in_time)

    async def _read(self, group: Sequence[_Open], layout: TableLayout, until: Deadline) -> RowTable:
        """The feature rows; builds of one branch have a line of them in common."""
        lines: dict[Subject, int] = {}
        for one in group:
            one.line = lines.setdefault(one.subject, len(lines))
        entities = [[entity(view, subject) for view in layout.views] for subject in lines]
        with self._telemetry.shared_stage(names.FEATURES_READ, calls_of(one.asked for one in group)):
            return await self._features.read(layout, entities, until)

    def _count(self, answers: Sequence[_Answer]) -> None:
        methods = Counter(answer.origin.method if isinstance(answer, Prediction) else "none" for answer in answers)
        for method, count in methods.items():
            attributes = {names.PREDICTOR: PREDICTOR, names.PREDICTION_METHOD: str(method)}
            self._telemetry.count(names.PREDICTIONS, attributes, count)


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


def _median(answer: _Answer | None) -> float | None:
    return answer.estimate.median_seconds if isinstance(answer, Prediction) else None
