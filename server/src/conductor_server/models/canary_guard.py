"""Takes a canary out of use by itself when it does not hold."""

from __future__ import annotations

import asyncio
import logging

from conductor_model_store import CANARY, ModelScope, ModelStore, ModelStoreError, Pointer, PointerMoved
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.canary_bounds import CanaryBounds
from conductor_server.models.registry import Registry
from conductor_server.models.variant_statistics import VariantStatistics
from conductor_server.prediction.answers import ModelLabel, Variant

_ACTOR = "canary guard"
_LOG = logging.getLogger(__name__)


class CanaryGuard:
    """Judges canaries by their statistics. Several servers at once are harmless: one of them moves the pointer."""

    def __init__(self, store: ModelStore, registry: Registry, telemetry: Telemetry, bounds: CanaryBounds) -> None:
        self._store, self._registry, self._telemetry, self._bounds = store, registry, telemetry, bounds
        self._tasks: set[asyncio.Task[None]] = set()

    def judge(self, label: ModelLabel, variant: Variant, statistics: VariantStatistics) -> None:
        """Withdraw a canary that is out of its bounds: here at once, in the store soon."""
        if variant is not Variant.CANARY or (broken := self._bounds.broken(statistics)) is None:
            return
        kind, detail = broken
        for place, pointer in self._registry.canaries():
            if place[0].resource_name != label.name or pointer.version != label.version:
                continue
            _LOG.error("%s canary %s is withdrawn: %s", label.name, label.version, detail)
            self._telemetry.count(names.CANARY_WITHDRAWALS, {names.REASON: kind})
            self._registry.set_variant(place, None)
            task = asyncio.get_running_loop().create_task(self._withdraw(place[0], pointer, detail))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _withdraw(self, scope: ModelScope, pointer: Pointer, detail: str) -> None:
        try:
            await asyncio.to_thread(
                self._store.withdraw, scope.predictor, scope.tenant_id, CANARY, detail, expected=pointer, actor=_ACTOR
            )
        except PointerMoved:
            _LOG.info("%s canary was moved by somebody else meanwhile", scope.resource_name)
        except ModelStoreError as error:
            _LOG.warning("%s canary is withdrawn in this process only: %s", scope.resource_name, error)
