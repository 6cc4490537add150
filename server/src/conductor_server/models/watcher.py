"""Follows the model store's champion pointers. What it can't verify and load never replaces what serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Self

from conductor_model_store import CHAMPION, ModelScope, ModelStore, ModelStoreError, Pointer
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.registry import Registry
from conductor_server.models.served_model import ServedModel
from conductor_server.models.sessions import ModelRefused
from conductor_server.models.verifier import Verifier

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 60.0
_PREVIOUS_VERSIONS = 5


@dataclass(slots=True)
class _Refusal:
    """A version that was refused: left alone for a while that doubles, as a store may be mended under us."""

    manifest_digest: str
    wait_seconds: float
    until: float


class ModelWatcher:
    """Polls the store off the event loop. Use as ``async with``."""

    def __init__(
        self, store: ModelStore, registry: Registry, verifier: Verifier, telemetry: Telemetry, poll_seconds: float
    ) -> None:
        self._store, self._registry, self._verifier = store, registry, verifier
        self._telemetry, self._poll_seconds = telemetry, poll_seconds
        self._refusals: dict[ModelScope, _Refusal] = {}
        self._first_pass = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="model-watcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._verifier.close()

    async def wait_for_first_pass(self, timeout_seconds: float) -> None:
        """Wait until every champion was tried once; gives up waiting, without an error, after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._first_pass.wait()

    async def _run(self) -> None:
        while True:
            try:
                await self._pass()
            except ModelStoreError as error:
                _LOG.warning("the model store can't be read, what serves goes on: %s", error)
            except Exception:  # the watcher must outlive whatever it meets
                _LOG.exception("watching the model store failed")
            self._first_pass.set()
            await asyncio.sleep(self._poll_seconds)

    async def _pass(self) -> None:
        pointers = await asyncio.to_thread(self._store.pointers, CHAMPION)
        for scope, pointer in sorted(pointers.items()):
            if scope.predictor in self._registry.predictors and self._is_due(scope, pointer):
                await self._follow(scope, pointer)
        await self._verifier.close()

    def _is_due(self, scope: ModelScope, pointer: Pointer) -> bool:
        serving = self._registry.get(scope)
        if serving is not None and serving.manifest_digest == pointer.manifest_digest:
            return False
        refusal = self._refusals.get(scope)
        return (
            refusal is None or refusal.manifest_digest != pointer.manifest_digest or time.monotonic() >= refusal.until
        )

    async def _follow(self, scope: ModelScope, pointer: Pointer) -> None:
        if await self._try(scope, pointer):
            self._refusals.pop(scope, None)
            return
        self._refuse(scope, pointer)
        if self._registry.get(scope) is not None:
            return
        # Nothing serves this scope yet, as after a restart: better what served before than nothing.
        history = await asyncio.to_thread(self._store.history, scope.predictor, scope.tenant_id, CHAMPION)
        tried = {pointer.manifest_digest}
        for previous in history[: 2 * _PREVIOUS_VERSIONS]:
            if previous.manifest_digest not in tried and len(tried) <= _PREVIOUS_VERSIONS:
                tried.add(previous.manifest_digest)
                if await self._try(scope, previous):
                    return

    async def _try(self, scope: ModelScope, pointer: Pointer) -> bool:
        """Read, verify, load, warm, swap."""
        try:
            loaded = await asyncio.to_thread(self._store.load_pointer, pointer)
            await self._verifier.verify(loaded)
            model = await asyncio.to_thread(ServedModel.of, loaded)
        except (ModelStoreError, ModelRefused) as error:
            level = logging.DEBUG if self._was_refused(scope, pointer) else logging.ERROR
            _LOG.log(level, "refused %s version %s: %s", scope.resource_name, pointer.version, error)
            self._count(names.MODEL_REFUSALS, scope, type(error).__name__)
            return False
        self._registry.put(scope, model)
        _LOG.info("%s version %s serves", scope.resource_name, pointer.version)
        self._count(names.MODEL_SWAPS, scope, pointer.reason)
        return True

    def _was_refused(self, scope: ModelScope, pointer: Pointer) -> bool:
        refusal = self._refusals.get(scope)
        return refusal is not None and refusal.manifest_digest == pointer.manifest_digest

    def _refuse(self, scope: ModelScope, pointer: Pointer) -> None:
        wait_seconds = _FIRST_RETRY_SECONDS
        if self._was_refused(scope, pointer):
            wait_seconds = min(2 * self._refusals[scope].wait_seconds, _LAST_RETRY_SECONDS)
        self._refusals[scope] = _Refusal(pointer.manifest_digest, wait_seconds, time.monotonic() + wait_seconds)

    def _count(self, name: str, scope: ModelScope, reason: str) -> None:
        self._telemetry.count(name, {names.PREDICTOR: scope.predictor, names.REASON: reason})
