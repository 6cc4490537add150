"""The models that are loaded, within a budget of memory: what was asked for longest ago goes first."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

from conductor_model_store import ModelScope
from conductor_server.models.served_model import ServedModel

Place = tuple[ModelScope, str]
"""A scope and one of its channels."""

_LOG = logging.getLogger(__name__)


class ResidentModels:
    """Loaded models by place. Used on the event loop only.

    A model that is dropped lives on for as long as a request holds it.
    """

    def __init__(self, budget_bytes: int, is_pinned: Callable[[Place], bool], on_drop: Callable[[Place], None]) -> None:
        """Start with none.

        Args:
            budget_bytes: what all may be reckoned to take together. One that is not pinned may be held beyond it: the
                latest.
            is_pinned: which are never dropped.
            on_drop: is told of each that is.
        """
        self._budget_bytes, self._is_pinned, self._on_drop = budget_bytes, is_pinned, on_drop
        self._pinned: dict[Place, ServedModel] = {}
        self._others: OrderedDict[Place, ServedModel] = OrderedDict()
        self._holders: Counter[str] = Counter()
        self._warned = False
        self.memory_bytes = 0
        """What all are reckoned to take; equal graphs count once."""
        self.eviction_count = 0

    def __len__(self) -> int:
        return len(self._pinned) + len(self._others)

    def __contains__(self, place: Place) -> bool:
        return place in self._pinned or place in self._others

    def items(self) -> list[tuple[Place, ServedModel]]:
        """What stands where."""
        return [*self._pinned.items(), *self._others.items()]

    def get(self, place: Place) -> ServedModel | None:
        """The model of a place, without counting as a use of it."""
        return self._pinned.get(place) or self._others.get(place)

    def touch(self, place: Place) -> None:
        """It was used just now."""
        if place in self._others:
            self._others.move_to_end(place)

    def put(self, place: Place, model: ServedModel) -> list[ServedModel]:
        """Let a model stand at a place from now on.

        Returns:
            What no longer stands anywhere. To let go of it may take milliseconds: not on the event loop.
        """
        gone = self._take(place)
        self._count(model, 1)
        if self._is_pinned(place):
            self._pinned[place] = model
        else:
            self._others[place] = model
        return gone + self._make_room()

    def remove(self, place: Place) -> list[ServedModel]:
        """Let nothing stand at a place; returns as ``put``."""
        return self._take(place)

    def _make_room(self) -> list[ServedModel]:
        gone: list[ServedModel] = []
        while self.memory_bytes > self._budget_bytes and len(self._others) > 1:
            place = next(iter(self._others))
            gone += self._take(place)
            self.eviction_count += 1
            self._on_drop(place)
        if self.memory_bytes > self._budget_bytes and not self._warned:
            self._warned = True
            _LOG.warning(
                "models that are never dropped take %d of %d bytes: raise model_memory_budget_bytes",
                self.memory_bytes,
                self._budget_bytes,
            )
        return gone

    def _take(self, place: Place) -> list[ServedModel]:
        model = self._pinned.pop(place, None) or self._others.pop(place, None)
        if model is None:
            return []
        self._count(model, -1)
        return [model]

    def _count(self, model: ServedModel, by: int) -> None:
        digest = model.graph.digest
        before = self._holders[digest]
        self._holders[digest] += by
        if before + by == 0:
            del self._holders[digest]
        if 0 in (before, before + by):
            self.memory_bytes += by * model.graph.memory_bytes
        self.memory_bytes += by * model.memory_bytes
