"""Run a replay: walk the timeline against a target."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_client import BuildDurationPrediction, ConductorError
from conductor_workbench.replay.history import Build, History
from conductor_workbench.replay.naive import NaiveRules
from conductor_workbench.replay.scores import Answer
from conductor_workbench.replay.target import Target
from conductor_workbench.replay.timeline import Ask, Deliver, Step, Train, timeline

_Deliveries = asyncio.Queue[tuple[int, list[CloudEvent]] | None]
"""Events, each batch with the number of questions asked before it; None is the end."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Replay:
    """One run. Without ``rate`` it waits for each answer; with it requests leave at a fixed rate, come what may."""

    def __init__(
        self,
        history: History,
        cuts: Mapping[str, datetime],
        target: Target,
        *,
        rate: float | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        if rate is not None and not rate > 0:
            raise ValueError("rate must be positive")
        self._steps = list(timeline(history, cuts))
        self._asks = sum(isinstance(step, Ask) for step in self._steps)
        self._target = target
        self._rate = rate
        self._progress = progress
        self._known = _Known(history.builds)
        self._answers: list[Answer] = []

    async def run(self) -> list[Answer]:
        """Every prediction, in the order in which it was asked for, each beside its outcome."""
        if self._rate is None:
            await self._one_by_one()
        else:
            await self._open_loop(self._rate)
        return self._answers

    async def _one_by_one(self) -> None:
        for step in self._steps:
            match step:
                case Ask(build):
                    self._answers.append(await self._ask(build, time.perf_counter()))
                    self._progress("Replaying", len(self._answers), self._asks)
                case _:
                    await self._prepare(step)
                    await self._target.settle()

    async def _open_loop(self, rate: float) -> None:
        """Everything up to the last training first; then requests at ``rate``, events between them as they come due.

        An event is delivered once the questions asked before it are answered, so no answer can rest on its future;
        features may lag behind, as in a running system.
        """
        last_training = max((i for i, step in enumerate(self._steps) if isinstance(step, Train)), default=-1)
        for step in self._steps[: last_training + 1]:
            if not isinstance(step, Ask):
                await self._prepare(step)
                await self._target.settle()
        steps = self._steps[last_training + 1 :]
        total = sum(isinstance(step, Ask) for step in steps)
        asked: list[asyncio.Task[Answer]] = []
        deliveries: _Deliveries = asyncio.Queue()
        delivering = asyncio.create_task(self._deliver(deliveries, asked))
        start = time.perf_counter()
        for step in steps:
            if isinstance(step, Ask):
                moment = start + len(asked) / rate
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
                asked.append(asyncio.create_task(self._ask(step.build, moment)))
                self._progress("Replaying", len(asked), total)
            elif isinstance(step, Deliver):
                deliveries.put_nowait((len(asked), step.events))
        deliveries.put_nowait(None)
        await delivering
        self._answers.extend(await asyncio.gather(*asked))

    async def _deliver(self, deliveries: _Deliveries, asked: Sequence[asyncio.Task[Answer]]) -> None:
        """Deliver what has come due, all of it in one go, once the questions asked before it are answered."""
        last = False
        while not last:
            due = [await deliveries.get()]
            while not deliveries.empty():
                due.append(deliveries.get_nowait())
            last = due[-1] is None
            batches = [item for item in due if item is not None]
            if batches:
                asked_before = batches[-1][0]
                await asyncio.gather(*(task for task in asked[:asked_before] if not task.done()))
                await self._target.deliver(event for _, events in batches for event in events)

    async def _prepare(self, step: Step) -> None:
        match step:
            case Deliver(events):
                await self._target.deliver(events)
            case Train(tenant, until) if self._target.train is not None:
                self._progress(f"Training for {tenant}", 0, 1)
                await self._target.train(tenant, until)

    async def _ask(self, build: Build, due: float) -> Answer:
        naive = self._known.naive_at(build)
        error, prediction = "", None
        try:
            prediction = await self._target.predictions(build.tenant_id).predict_build_duration(
                build.tenant_id, build.context
            )
        except ConductorError as failure:
            error = failure.reason.name
        return _answer(build, prediction, error, time.perf_counter() - due, naive)


class _Known:
    """Naive rules over what had ended by the time of the build that is asked for."""

    def __init__(self, builds: Iterable[Build]) -> None:
        self._rules = NaiveRules()
        self._ended = [
            (build.outcome.completed_time, index, build) for index, build in enumerate(builds) if build.outcome
        ]
        heapq.heapify(self._ended)

    def naive_at(self, build: Build) -> Mapping[str, float]:
        """Predictions of the rules for ``build``; must be called in queued order."""
        while self._ended and self._ended[0][0] < build.queued_time:
            _, _, ended = heapq.heappop(self._ended)
            if ended.outcome:
                self._rules.observe(ended, ended.outcome)
        return self._rules.predict(build)


def _answer(
    build: Build, prediction: BuildDurationPrediction | None, error: str, latency: float, naive: Mapping[str, float]
) -> Answer:
    if prediction is None:
        return Answer(
            build.project, build.build_id, build.queued_time, latency, error, naive=naive, outcome=build.outcome
        )
    return Answer(
        project=build.project,
        build_id=build.build_id,
        queued_time=build.queued_time,
        latency_seconds=latency,
        median_seconds=prediction.median.total_seconds(),
        lower_seconds=prediction.lower.total_seconds(),
        upper_seconds=prediction.upper.total_seconds(),
        coverage=prediction.coverage,
        method=prediction.method.name.lower(),
        model_version=prediction.model_version,
        naive=naive,
        outcome=build.outcome,
    )
