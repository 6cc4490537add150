"""Asks a second model what the first was asked, after the answer is given: shadows, canaries, challengers.

A bounded queue and one thread: where that can't keep up, questions are dropped and counted, and no request waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_features.tables import RowTable
from conductor_rpc import names
from conductor_rpc.call import Attributes
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.background import Background
from conductor_server.models.variant_statistics import VariantStatistics
from conductor_server.prediction.answers import Estimate, ModelLabel, Variant
from conductor_server.prediction.columns import Question
from conductor_server.prediction.gathering import Gatherer
from conductor_server.prediction.ports import Model, ModelFailed, Route
from conductor_server.prediction.run_notes import notes_of_run

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 512
"""Requests."""
_MOST_REMEMBERED = 1000
"""Versions with statistics."""

Judge = Callable[[ModelLabel, Variant, VariantStatistics], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    route: Route
    questions: Sequence[Question]
    rows: RowTable
    medians: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class _Scored:
    """What the models of one route say now, and how long they took."""

    medians: Sequence[float | None]
    seconds: tuple[float, float] | None
    """Of the variant and of the champion; None where one of them failed."""


class Comparison(Background):
    """Compares in the background. Use as ``async with``; ``offer`` is for the event loop."""

    def __init__(self, telemetry: Telemetry, judge: Judge = lambda *_: None) -> None:
        """``judge``: is told of a version's statistics whenever they grew."""
        self._telemetry, self._judge = telemetry, judge
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._statistics: OrderedDict[tuple[str, str, Variant], VariantStatistics] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "comparison")

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def offer(
        self, route: Route, questions: Sequence[Question], rows: RowTable, medians: Sequence[float | None]
    ) -> None:
        """Queue questions with the first model's answers; drop them where too many wait."""
        if len(self._waiting) >= _MOST_WAITING:
            label, variant = _compared(route)
            self.of(label, variant).dropped_count += len(questions)
            self._telemetry.count(names.VARIANT_DROPS, {names.VARIANT: variant.value}, len(questions))
            return
        self._waiting.append(_Waiting(route, questions, rows, medians))
        self._wake.set()

    def of(self, label: ModelLabel, variant: Variant) -> VariantStatistics:
        """The statistics of a version; new ones where there are none."""
        key = (label.name, label.version, variant)
        found = self._statistics.get(key)
        if found is None:
            found = self._statistics[key] = VariantStatistics()
            if len(self._statistics) > _MOST_REMEMBERED:
                self._statistics.popitem(last=False)
        return found

    def known(self, label: ModelLabel, variant: Variant) -> VariantStatistics | None:
        """The statistics of a version, if there are any."""
        return self._statistics.get((label.name, label.version, variant))

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            waiting = self._waiting.popleft()
            try:
                with self._telemetry.side_work(names.MODEL_COMPARE, _notes(waiting)):
                    scored = await asyncio.get_running_loop().run_in_executor(self._thread, _score, waiting)
                self._note(waiting, scored)
            except Exception:  # comparing must outlive whatever it meets
                _LOG.exception("comparing models failed")

    def _note(self, waiting: _Waiting, scored: _Scored) -> None:
        label, variant = _compared(waiting.route)
        statistics = self.of(label, variant)
        if scored.seconds is not None:
            statistics.seconds.append(scored.seconds)
        shadow = variant is Variant.SHADOW
        for answered, beside in zip(waiting.medians, scored.medians, strict=True):
            of_variant, of_champion = (beside, answered) if shadow else (answered, beside)
            if of_variant is None:
                statistics.failure_count += 1
                self._telemetry.count(names.VARIANT_FAILURES, {names.VARIANT: variant.value})
            elif of_champion is not None:
                difference = statistics.compared(of_variant, of_champion)
                self._telemetry.differs(abs(difference), {names.VARIANT: variant.value})
        self._judge(label, variant, statistics)


def _compared(route: Route) -> tuple[ModelLabel, Variant]:
    """Which version the comparison is about."""
    if route.variant is Variant.CHAMPION and route.beside is not None:
        return route.beside.label, Variant.SHADOW
    return route.models[0].label, route.variant


def _notes(waiting: _Waiting) -> Attributes:
    """For the traces of requests that are answered meanwhile."""
    label, variant = _compared(waiting.route)
    return {**notes_of_run(label, len(waiting.questions)), names.VARIANT: variant.value}


def _score(waiting: _Waiting) -> _Scored:
    """Ask the model beside; and time the two side by side, on the same rows, with nothing else on their thread."""
    route, nothing = waiting.route, [None] * len(waiting.questions)
    if route.beside is None or route.gatherer_beside is None:
        return _Scored(nothing, None)
    medians, beside_seconds = _ask(route.beside, route.gatherer_beside, waiting)
    _, first_seconds = _ask(route.models[0], route.gatherers[0], waiting)
    if beside_seconds is None or first_seconds is None:
        return _Scored(medians, None)
    shadow = route.variant is Variant.CHAMPION
    return _Scored(medians, (beside_seconds, first_seconds) if shadow else (first_seconds, beside_seconds))


def _ask(model: Model, gatherer: Gatherer, waiting: _Waiting) -> tuple[Sequence[float | None], float | None]:
    inputs = gatherer.gather(waiting.questions, waiting.rows)
    medians: list[float | None] = [None] * len(waiting.questions)
    able: list[int] = np.flatnonzero(inputs.answerable).tolist()
    if not able:
        return medians, None
    began = time.perf_counter()
    try:
        outputs: NDArray[np.float64] = model.score(inputs.inputs[able])
    except ModelFailed:
        return medians, None
    seconds = time.perf_counter() - began
    for at, output in zip(able, outputs.tolist(), strict=True):
        estimate = Estimate.checked(*output)
        medians[at] = estimate.median_seconds if estimate is not None else None
    return medians, seconds
