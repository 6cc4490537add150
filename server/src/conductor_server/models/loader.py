"""Brings models into memory, one at a time, beside the requests. What it can't verify never replaces what serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from conductor_model_store import (
    CHAMPION,
    ModelStore,
    ModelStoreError,
    ModelStoreUnavailable,
    Pointer,
    PointerWatch,
    UntrustedModel,
    UntrustedPointer,
)
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.background import Background
from conductor_server.models.registry import Registry
from conductor_server.models.resident import Place
from conductor_server.models.served_model import ServedModel
from conductor_server.models.sessions import ModelRefused
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.models.verifier import Verifier

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 60.0
_LAST_OUTAGE_RETRY_SECONDS = 4.0
"""Where it was not the model's fault."""
_PREVIOUS_VERSIONS = 5
_ASKED_SECONDS = 10.0
"""Whoever asked longer ago has long been answered; if there are more requests, they ask again."""
_MOST_ASKED = 1024
_REST_SHARE = 2.0
"""After a model that a request asked for: rest for so many times what it took. Loading must leave requests the
processor, however many tenants wait; one model comes at once all the same."""
_IDLE_SECONDS = 30.0
"""The verifying process takes a second to start and a hundred megabytes: it stays for a while, not for ever."""

_REFUSED: list[type[Exception]] = [ModelRefused, ModelStoreError, *ModelStoreError.__subclasses__()]
_REFUSALS = sorted(error.__name__ for error in _REFUSED)
"""Reasons that refusals are counted by."""

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Refusal:
    """A version that was refused: left alone for a while that doubles, as a store may be mended under us."""

    manifest_digest: str
    """Empty where no version was even read."""
    wait_seconds: float
    until: float
    wanted: bool
    """Whether to try again without being asked."""
    stand_in: Pointer | None = None
    """The version before it that was found good."""


class ModelLoader(Background):
    """Loads what must be there, in order; then what requests asked for, the latest first. Use as ``async with``."""

    def __init__(
        self, store: ModelStore, watch: PointerWatch, registry: Registry, verifier: Verifier, telemetry: Telemetry
    ) -> None:
        self._store, self._watch, self._registry, self._verifier = store, watch, registry, verifier
        self._telemetry = telemetry
        for predictor in registry.predictors:
            for reason in _REFUSALS:  # an alert sees the first only after a zero
                telemetry.count(names.MODEL_REFUSALS, {names.PREDICTOR: predictor, names.REASON: reason}, 0)
        self._parts = SharedParts()
        self._followed: OrderedDict[Place, None] = OrderedDict()
        self._asked: OrderedDict[Place, float] = OrderedDict()
        self._refusals: dict[Place, _Refusal] = {}
        self._wake = asyncio.Event()
        self._must = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        # One thread of its own: the default ones must stay free for what requests do beside the loop.
        self._thread = ThreadPoolExecutor(1, "model-loader")

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._verifier.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def follow(self, place: Place) -> None:
        """What stands at a place shall be what its channel points at, whether anybody asks or not."""
        self._refusals.pop(place, None)
        self._asked.pop(place, None)
        self._queue(place)

    async def drop(self, place: Place, error: ModelStoreError) -> None:
        """Stop serving a place, because its model is trusted no longer; the next rung answers."""
        _LOG.error("dropped %s, %s: %s", place[0].resource_name, place[1], error)
        self._count(names.MODEL_REFUSALS, place, type(error).__name__)
        gone = self._registry.drop(place)
        await self._beside(gone.clear)

    def forget(self, place: Place) -> None:
        """The channel points elsewhere: whether it was refused says nothing any more."""
        self._refusals.pop(place, None)

    def ask(self, place: Place) -> bool:
        """A request would like the model; cheap, and as often as it pleases.

        Returns:
            Whether it may be expected: no for one that was refused when it was last tried.
        """
        refusal = self._refusals.get(place)
        if refusal is not None and refusal.stand_in is not None:
            refusal = None  # the version before it may be
        if refusal is not None and time.monotonic() < refusal.until:
            return False
        if place not in self._followed:
            self._asked[place] = time.monotonic()
            self._asked.move_to_end(place)
            if len(self._asked) > _MOST_ASKED:
                self._asked.popitem(last=False)
            self._wake.set()
        return refusal is None

    def retry(self) -> None:
        """Try again what was refused long enough ago."""
        now = time.monotonic()
        for place, refusal in self._refusals.items():
            if refusal.wanted and now >= refusal.until:
                self._queue(place)

    async def settled(self) -> None:
        """Wait until everything that is followed was tried."""
        await self._settled.wait()

    def _queue(self, place: Place) -> None:
        self._followed[place] = None
        self._settled.clear()
        self._must.set()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            place, wanted = self._next()
            if place is None:
                await self._rest()
                continue
            began = time.monotonic()
            try:
                await self._bring(place, wanted=wanted)
            except ModelStoreError as error:
                _LOG.warning("the model store can't be read, what serves goes on: %s", error)
                self._put_off(place, "", wanted=wanted)
            except Exception:  # the loader must outlive whatever it meets
                _LOG.exception("loading a model failed")
                self._put_off(place, "", wanted=wanted)
            if not wanted:
                await self._pause(_REST_SHARE * (time.monotonic() - began))

    async def _pause(self, seconds: float) -> None:
        """Leave the processor to requests for a while, unless something must be loaded meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._must.wait()

    def _next(self) -> tuple[Place | None, bool]:
        if self._followed:
            return self._followed.popitem(last=False)[0], True
        self._settled.set()
        self._must.clear()
        if self._asked:
            place, asked = self._asked.popitem()
            if time.monotonic() - asked <= _ASKED_SECONDS:
                return place, False
            self._asked.clear()  # it was the latest
        return None, False

    async def _rest(self) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._wake.wait()
            return
        await self._verifier.close()
        await self._wake.wait()

    async def _bring(self, place: Place, *, wanted: bool) -> None:
        """Make the place hold what its channel points at; else, where it holds nothing, a version before that."""
        pointer = await self._beside(lambda: self._watch.pointer(*place))
        serving = self._registry.get(place)
        if serving is not None and not self._store.trusts(serving.signed_by):
            # It was on its way while the keys changed.
            await self.drop(place, UntrustedModel(f"the key of {serving.label.version} is trusted no longer"))
            serving = None
        if pointer is None and serving is not None and self._store.checks_moves:
            # The memory of moves outlives deleted files, so this is none: their keys are trusted no longer.
            await self.drop(place, UntrustedPointer(f"no trusted key put {serving.label.version} to use"))
        if pointer is None or pointer.withdrawn:
            return
        if serving is not None and serving.manifest_digest == pointer.manifest_digest:
            return
        refusal = self._refusals.get(place)
        if refusal and refusal.manifest_digest == pointer.manifest_digest and time.monotonic() < refusal.until:
            if serving is None and refusal.stand_in is not None:
                await self._try(place, refusal.stand_in)
            return
        if await self._try(place, pointer):
            self._refusals.pop(place, None)
            return
        refusal = self._put_off(place, pointer.manifest_digest, wanted=wanted)
        if serving is None:
            # Nothing serves this place yet, as after a restart: better what served before than nothing.
            refusal.stand_in = await self._try_previous(place, pointer)

    async def _try_previous(self, place: Place, refused: Pointer) -> Pointer | None:
        scope, channel = place
        history = await self._beside(lambda: self._store.history(scope.predictor, scope.tenant_id, channel))
        tried = {refused.manifest_digest}
        for previous in history[: 2 * _PREVIOUS_VERSIONS]:
            if previous.withdrawn or channel != CHAMPION:
                continue
            if previous.manifest_digest not in tried and len(tried) <= _PREVIOUS_VERSIONS:
                tried.add(previous.manifest_digest)
                if await self._try(place, previous):
                    return previous
        return None

    async def _try(self, place: Place, pointer: Pointer) -> bool:
        """Read, verify, load, warm, swap."""
        scope = place[0]
        began = time.perf_counter()
        try:
            loaded = await self._beside(lambda: self._store.load_pointer(pointer))
            await self._verifier.verify(loaded)
            model = await self._beside(lambda: ServedModel.of(loaded, self._parts))
        except ModelStoreUnavailable:
            raise
        except (ModelStoreError, ModelRefused) as error:
            level = logging.DEBUG if self._was_refused(place, pointer) else logging.ERROR
            _LOG.log(level, "refused %s version %s: %s", scope.resource_name, pointer.version, error)
            self._count(names.MODEL_REFUSALS, place, type(error).__name__)
            return False
        if place[1] != CHAMPION and self._registry.variant(place) is None:
            return True  # withdrawn meanwhile
        swapped = self._registry.get(place) is not None
        gone = self._registry.put(place, model)
        self._telemetry.took(names.MODEL_LOAD_DURATION, time.perf_counter() - began, _attributes(place, pointer.reason))
        level = logging.INFO if swapped or self._registry.is_pinned(place) else logging.DEBUG
        _LOG.log(level, "%s version %s serves", scope.resource_name, pointer.version)
        self._count(names.MODEL_SWAPS, place, pointer.reason)
        if gone:
            await self._beside(gone.clear)
        return True

    async def _beside(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _was_refused(self, place: Place, pointer: Pointer) -> bool:
        refusal = self._refusals.get(place)
        return refusal is not None and refusal.manifest_digest == pointer.manifest_digest

    def _put_off(self, place: Place, manifest_digest: str, *, wanted: bool) -> _Refusal:
        before = self._refusals.get(place)
        wait_seconds, stand_in = _FIRST_RETRY_SECONDS, None
        if before is not None and before.manifest_digest == manifest_digest:
            last_seconds = _LAST_RETRY_SECONDS if manifest_digest else _LAST_OUTAGE_RETRY_SECONDS
            wait_seconds = min(2 * before.wait_seconds, last_seconds)
            wanted, stand_in = wanted or before.wanted, before.stand_in
        refusal = _Refusal(manifest_digest, wait_seconds, time.monotonic() + wait_seconds, wanted, stand_in)
        self._refusals[place] = refusal
        return refusal

    def _count(self, name: str, place: Place, reason: str) -> None:
        self._telemetry.count(name, _attributes(place, reason))


def _attributes(place: Place, reason: str) -> dict[str, str]:
    """``reason``: of a closed set."""
    return {names.PREDICTOR: place[0].predictor, names.REASON: reason}
