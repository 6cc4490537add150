"""Follows the model store's pointers: what moved is loaded anew if it is in use, and merely known if it is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from conductor_model_store import CANARY, CHALLENGER, CHAMPION, SHADOW, ModelStoreError, Pointer, PointerWatch
from conductor_server.models.background import Background
from conductor_server.models.loader import ModelLoader
from conductor_server.models.registry import Registry
from conductor_server.models.resident import Place

_VARIANTS = frozenset({CANARY, CHALLENGER, SHADOW})
_LOG = logging.getLogger(__name__)


class ModelWatcher(Background):
    """Polls the store off the event loop. Use as ``async with``."""

    def __init__(
        self,
        watch: PointerWatch,
        registry: Registry,
        loader: ModelLoader,
        on_move: Callable[[Sequence[Place]], None] = lambda _: None,
        *,
        poll_seconds: float,
        load_all_count: int,
    ) -> None:
        """Follow what ``watch`` tells.

        Args:
            watch: where channels point.
            registry: is told what there is.
            loader: is told what to load.
            on_move: is told of every channel that moved.
            poll_seconds: time between looks.
            load_all_count: of no more tenants' models than so many, all are loaded without being asked for.
        """
        self._on_move = on_move
        self._watch, self._registry, self._loader = watch, registry, loader
        self._poll_seconds, self._load_all_count = poll_seconds, load_all_count
        self._places: set[Place] = set()
        self._moved: dict[Place, None] = {}
        self._first_pass = asyncio.Event()

    async def wait_for_first_pass(self, timeout_seconds: float) -> None:
        """Wait until what need not be asked for was tried once; gives up, without an error, after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._first_pass.wait()
                await self._loader.settled()

    async def _run(self) -> None:
        while True:
            try:
                self._take(*await asyncio.to_thread(self._look))
                self._loader.retry()
            except ModelStoreError as error:
                _LOG.warning("the model store can't be read, what serves goes on: %s", error)
            except Exception:  # the watcher must outlive whatever it meets
                _LOG.exception("watching the model store failed")
            self._first_pass.set()
            await asyncio.sleep(self._poll_seconds)

    def _look(self) -> tuple[list[Place], dict[Place, Pointer | None]]:
        """What moved; and where it points, for the few channels whose weights must be known. Not on the event loop."""
        # Kept until all of it was read: a poll tells of each move once, and the next read may fail.
        self._moved.update(
            (place, None) for place in self._watch.poll() if place[0].predictor in self._registry.predictors
        )
        variants = {place: self._watch.pointer(*place) for place in self._moved if place[1] in _VARIANTS}
        champions = [place for place in self._moved if place[1] == CHAMPION]
        self._moved.clear()
        return champions, variants

    def _take(self, champions: Sequence[Place], variants: Mapping[Place, Pointer | None]) -> None:
        self._places.update(champions)
        self._registry.know(scope for scope, _ in champions)
        for place, pointer in variants.items():
            self._registry.set_variant(place, pointer)
        moved = sorted([*champions, *(place for place, pointer in variants.items() if pointer)])
        few = len(self._places) <= self._load_all_count
        for place in moved:
            if few or self._registry.is_pinned(place) or place in self._registry.resident:
                self._loader.follow(place)
            else:
                self._loader.forget(place)
        if champions or variants:
            self._on_move([*champions, *variants])
