"""What a selection may promise, by what a model's past runs showed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace

from conductor_model_store.promise import EVERYTHING, Reason, Replay
from conductor_server.prediction.answers import Method, Origin, Variant
from conductor_server.prediction.ports import Model, Route
from conductor_server.testing.answers import Ground, Promise, Realised

WINDOW = 200
"""Latest runs with a failure that a promise is calibrated on."""
_REMEMBERED = 256
_DAY = 86_400.0
_GROUNDS = {
    Reason.CALIBRATED: Ground.CALIBRATED,
    Reason.TOO_FEW_CYCLES: Ground.TOO_FEW_RUNS,
    Reason.PROMISE_WAS_BROKEN: Ground.BROKEN_LATELY,
}


class Promises:
    """Promises by model and share, worked out when first asked for: that takes a tenth of a second, in a thread."""

    def __init__(self, maximum_age_days: float) -> None:
        """Of the latest run that is calibrated on, at the question's time; an older calibration promises nothing."""
        self._maximum_age_seconds = maximum_age_days * _DAY
        self._replays: OrderedDict[tuple[str, float], asyncio.Task[Replay]] = OrderedDict()
        self._alone = asyncio.Lock()

    async def promise(self, route: Route, origin: Origin, tenant_id: str, alpha: float, moment_us: int) -> Promise:
        """What may be promised of an answer.

        Args:
            route: the models that were asked.
            origin: where the probabilities come from.
            tenant_id: whose tests they are.
            alpha: the share of a run's failures that may be missed.
            moment_us: when the run begins, in microseconds since the epoch.
        """
        model = _calibrated(route, origin, tenant_id)
        if model is None:
            return Promise(alpha, Ground.NO_CALIBRATION)
        replay = await self._replay(model, alpha)
        return promise_at(replay, alpha, moment_us / 1e6, self._maximum_age_seconds)

    async def _replay(self, model: Model, alpha: float) -> Replay:
        # The same graph may come with another calibration: the version is that of both.
        key = (model.label.version, alpha)
        task = self._replays.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._replays[key] = asyncio.create_task(self._work_out(model, alpha))
            while len(self._replays) > _REMEMBERED:
                self._replays.popitem(last=False)
        self._replays.move_to_end(key)
        return await asyncio.shield(task)  # whoever gives up must not take it from the others

    async def _work_out(self, model: Model, alpha: float) -> Replay:
        async with self._alone:  # many shares at once must not take all threads
            return await asyncio.to_thread(Replay, alpha, WINDOW, model.past_cycles or ())


def _calibrated(route: Route, origin: Origin, tenant_id: str) -> Model | None:
    """The model that answered, if it is the tenant's own champion, answered fully and was calibrated."""
    if origin.method is not Method.MODEL or route.variant is not Variant.CHAMPION:
        return None
    model = route.models[0]
    own = model.tenant_id == tenant_id and model.label == origin.model
    return model if own and model.past_cycles is not None else None


def promise_at(replay: Replay, alpha: float, moment: float, maximum_age_seconds: float) -> Promise:
    """What may be promised at a moment, in epoch seconds, by runs that had ended before it."""
    known = replay.known(moment)
    threshold = replay.threshold(moment)
    if not known:
        return Promise(alpha, Ground.TOO_FEW_RUNS, threshold)
    until = max(kept.cycle.completed for kept in known)
    realised = Realised(
        miss_rate=sum(kept.missed for kept in known) / len(known),
        run_count=len(known),
        start_seconds=min(kept.cycle.started for kept in known),
        end_seconds=until,
    )
    ground = _GROUNDS[threshold.reason]
    if moment - until > maximum_age_seconds:
        ground, threshold = Ground.TOO_OLD, replace(threshold, score=EVERYTHING)
    return Promise(alpha, ground, threshold, until, realised)
