"""Entities and the moments as of which their rows are wanted, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import repeat

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from conductor_features.views import View
from conductor_warehouse import staging
from conductor_warehouse.times import to_datetime, to_microseconds

Entity = tuple[str, ...]
"""Values of a view's join keys."""
Moment = tuple[Entity, datetime]
Integers = NDArray[np.int64]
Microseconds = NDArray[np.int64]
"""Moments in microseconds since 1970."""

LONG_AGO = 0
"""Before any event."""


@dataclass
class _Told:
    """Pairs of entity and moment, flat."""

    entities: list[Entity] = field(default_factory=list)
    at: list[int] = field(default_factory=list)

    def add(self, entities: Sequence[Entity], at: int) -> None:
        self.entities += entities
        self.at += repeat(at, len(entities))

    def update(self, other: _Told) -> None:
        self.entities += other.entities
        self.at += other.at


@dataclass
class Touched:
    """What a batch of events means for one view."""

    wanted: _Told = field(default_factory=_Told)
    """Where the events themselves want a row."""
    changed: _Told = field(default_factory=_Told)
    """Where something that the entity's rows tell of has changed: its later rows may have changed too."""

    def want(self, entities: Sequence[Entity], at: int) -> None:
        """Each entity is to have a row as of ``at``, in microseconds since 1970."""
        self.wanted.add(entities, at)

    def change(self, entities: Sequence[Entity], at: int) -> None:
        """Something of each entity has changed as of ``at``, in microseconds since 1970."""
        self.changed.add(entities, at)

    def update(self, other: Touched) -> None:
        """What other events mean for the view too."""
        self.wanted.update(other.wanted)
        self.changed.update(other.changed)


@dataclass(frozen=True)
class Moments:
    """Moments in the order of (entity, time), each once; an entity may have none."""

    entities: Sequence[Entity]
    """Each entity once, sorted."""
    entity: Integers
    """Position of each moment's entity. Shape (moments,)."""
    at: Microseconds
    """Shape (moments,)."""

    @classmethod
    def of(cls, moments: Iterable[Moment]) -> Moments:
        """Moments from pairs of entity and time."""
        told = list(moments)
        entities = sorted({entity for entity, _ in told})
        at = np.fromiter((to_microseconds(moment) for _, moment in told), np.int64, len(told))
        return cls.ordered(entities, positions([entity for entity, _ in told], entities), at)

    @classmethod
    def ordered(cls, entities: Sequence[Entity], entity: Integers, at: Microseconds) -> Moments:
        """Moments that are in any order, some of them twice."""
        order = np.lexsort((at, entity))
        entity, at = entity[order], at[order]
        fresh = np.ones(len(at), bool)
        fresh[1:] = (entity[1:] != entity[:-1]) | (at[1:] != at[:-1])
        return cls(entities, entity[fresh], at[fresh])

    def __len__(self) -> int:
        return len(self.at)

    @cached_property
    def begins(self) -> Integers:
        """Position of each entity's first moment. Shape (entities,)."""
        return np.searchsorted(self.entity, np.arange(len(self.entities)), side="left")

    @cached_property
    def ends(self) -> Integers:
        """Position behind each entity's last moment. Shape (entities,)."""
        return np.searchsorted(self.entity, np.arange(len(self.entities)), side="right")

    def take(self, which: NDArray[np.bool_] | Integers) -> Moments:
        """Some of the moments (a mask, or ascending positions), and the entities that they are of."""
        kept, entity = np.unique(self.entity[which], return_inverse=True)
        return Moments([self.entities[index] for index in kept], entity.astype(np.int64), self.at[which])

    def batch(self, view: View, after: Microseconds | None = None) -> pa.RecordBatch:
        """The entities with their first and last moment: number, the view's keys, first_time, last_time, after_time.

        ``after_time`` is of the caller's choice, for each entity; long ago by default.
        """
        after = np.full(len(self.entities), LONG_AGO) if after is None else after
        return entity_batch(
            view,
            self.entities,
            {"first_time": self.at[self.begins], "last_time": self.at[self.ends - 1], "after_time": after},
        )

    def pairs(self) -> list[Moment]:
        """(entity, time) of each moment."""
        return [(self.entities[entity], to_datetime(int(at))) for entity, at in zip(self.entity, self.at, strict=True)]


def entity_batch(view: View, entities: Sequence[Entity], times: dict[str, Microseconds]) -> pa.RecordBatch:
    """Entities with their number, the view's keys and a time for each."""
    keys = list(zip(*entities, strict=True)) or [()] * len(view.entity)
    return pa.record_batch(
        {
            "number": pa.array(np.arange(len(entities)), staging.BIG_INTEGER),
            **{name: pa.array(values, staging.TEXT) for name, values in zip(view.entity, keys, strict=True)},
            **{name: pa.array(values, staging.BIG_INTEGER).cast(staging.TIME) for name, values in times.items()},
        }
    )


def positions(told: Sequence[Entity], entities: Sequence[Entity]) -> Integers:
    """The position of each told entity among ``entities``."""
    position = dict(zip(entities, range(len(entities)), strict=True))
    return np.fromiter(map(position.__getitem__, told), np.int64, len(told))


def count_until(owner: Integers, at: Microseconds, moments: Moments, until: Microseconds) -> Integers:
    """How many of its entity's facts each moment has at or before ``until``.

    Args:
        owner: each fact's entity. Shape (facts,).
        at: each fact's time. Shape (facts,).
        moments: whose.
        until: shape (moments,).
    """
    # Facts and moments in one order, facts first where times tie: then a running count tells.
    kind = np.concatenate([np.zeros(len(owner), np.int8), np.ones(len(moments), np.int8)])
    order = np.lexsort((kind, np.concatenate([at, until]), np.concatenate([owner, moments.entity])))
    running = np.cumsum(order < len(owner))
    found = np.empty(len(order), np.int64)
    found[order] = running
    before = np.searchsorted(np.sort(owner), moments.entity, side="left")
    counts: Integers = found[len(owner) :] - before
    return counts
