"""Entities and the moments as of which their rows are wanted, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from conductor_features.views import View
from conductor_warehouse import staging

Entity = tuple[str, ...]
"""Values of a view's join keys."""
Moment = tuple[Entity, datetime]
Microseconds = NDArray[np.int64]
"""Moments in microseconds since 1970."""

LONG_AGO = 0
"""Before any event."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class Touched:
    """What a batch of events means for one view."""

    moments: set[Moment] = field(default_factory=set)
    """Where the events themselves want a row."""
    changed: dict[Entity, tuple[datetime, datetime]] = field(default_factory=dict)
    """First and last moment at which something that the entity's rows tell of has changed."""

    def change(self, entity: Entity, moment: datetime) -> None:
        """Something of ``entity`` has changed as of ``moment``."""
        known = self.changed.get(entity)
        if known is None:
            self.changed[entity] = (moment, moment)
        elif not known[0] <= moment <= known[1]:
            self.changed[entity] = (min(known[0], moment), max(known[1], moment))

    def add(self, other: Touched) -> None:
        """Count in what further events mean."""
        self.moments |= other.moments
        for entity, (first, last) in other.changed.items():
            self.change(entity, first)
            self.change(entity, last)


@dataclass(frozen=True)
class Moments:
    """Moments in the order of (entity, time), each once."""

    entities: Sequence[Entity]
    """Each entity once, sorted."""
    entity: NDArray[np.int64]
    """Position of each moment's entity. Shape (moments,)."""
    at: Microseconds
    """Shape (moments,)."""

    @classmethod
    def of(cls, moments: Iterable[Moment]) -> Moments:
        """Moments from pairs of entity and time."""
        ordered = sorted(set(moments))
        entities = list(dict.fromkeys(entity for entity, _ in ordered))
        position = {entity: index for index, entity in enumerate(entities)}
        return cls(
            entities,
            np.fromiter((position[entity] for entity, _ in ordered), np.int64, len(ordered)),
            np.fromiter((to_microseconds(at) for _, at in ordered), np.int64, len(ordered)),
        )

    def __len__(self) -> int:
        return len(self.at)

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """Position of each entity's first moment. Shape (entities,)."""
        return np.searchsorted(self.entity, np.arange(len(self.entities)), side="left")

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Position behind each entity's last moment. Shape (entities,)."""
        return np.searchsorted(self.entity, np.arange(len(self.entities)), side="right")

    def take(self, which: NDArray[Any]) -> Moments:
        """Some of the moments: a mask, or ascending positions."""
        kept, entity = np.unique(self.entity[which], return_inverse=True)
        return Moments([self.entities[index] for index in kept], entity.astype(np.int64), self.at[which])

    def batch(self, view: View, after: Microseconds | None = None) -> pa.RecordBatch:
        """The entities with their first and last moment: number, the view's keys, first_time, last_time, after_time.

        ``after_time`` is of the caller's choice, for each entity; long ago by default.
        """
        after = np.full(len(self.entities), LONG_AGO) if after is None else after
        keys = list(zip(*self.entities, strict=True)) or [()] * len(view.entity)
        return pa.record_batch(
            {
                "number": pa.array(np.arange(len(self.entities)), staging.BIG_INTEGER),
                **{name: pa.array(values, staging.TEXT) for name, values in zip(view.entity, keys, strict=True)},
                "first_time": pa.array(self.at[self.begins], staging.TIME),
                "last_time": pa.array(self.at[self.ends - 1], staging.TIME),
                "after_time": pa.array(after, staging.TIME),
            }
        )

    def pairs(self) -> list[tuple[Any, ...]]:
        """(entity, time) of each moment."""
        return [(self.entities[entity], to_datetime(int(at))) for entity, at in zip(self.entity, self.at, strict=True)]


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(microseconds: int) -> datetime:
    """The moment in UTC."""
    return _EPOCH + microseconds * _MICROSECOND
