"""Feature rows of many entities at once, gone through in memory by the warehouse's own definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from conductor_features.views import View
from conductor_warehouse.features.folds import State

Step = Callable[[State, Mapping[str, NDArray[np.float64]]], State]
Places = NDArray[np.int64]
UNKNOWN = -1


class Histories:
    """The latest row of each entity of a view."""

    def __init__(self, view: View, counts: Sequence[str], step: Step) -> None:
        """``counts`` are the fields that begin at 0; ``step`` goes on by one fact of each of some entities."""
        self._view, self._step = view, step
        self._fresh = np.array([0.0 if name in counts else np.nan for name in view.field_names])
        self._places: dict[str, int] = {}
        self._rows = np.empty((0, len(view.fields)))
        self._at = np.empty(0)

    def find(self, names: Sequence[str]) -> Places:
        """Where the entities are; -1 for one without a row."""
        return np.fromiter((self._places.get(name, UNKNOWN) for name in names), np.int64, len(names))

    def rows(self, places: Places, at: float) -> NDArray[np.float64]:
        """Rows as of the moment ``at`` (epoch s), shape [places, fields]; NaN where there is none, or it is too old."""
        known = places != UNKNOWN
        known[known] = at - self._at[places[known]] <= self._view.maximum_age.total_seconds()
        rows = np.full((len(places), len(self._view.fields)), np.nan)
        rows[known] = self._rows[places[known]]
        return rows

    def add(self, names: Sequence[str], at: float, facts: Mapping[str, NDArray[np.float64]]) -> None:
        """Facts of entities, in their order; an entity may have several. All are of the moment ``at``."""
        places = self._make(names)
        for which in occurrences(places):
            rows = self._rows[places[which]]
            state = {name: rows[:, column] for column, name in enumerate(self._view.field_names)}
            now = {name: values[which] for name, values in facts.items()} | {"at": np.full(len(which), at)}
            after = self._step(state, now)
            self._rows[places[which]] = np.column_stack([after[name] for name in self._view.field_names])
            self._at[places[which]] = at

    def _make(self, names: Sequence[str]) -> Places:
        fresh = [name for name in dict.fromkeys(names) if name not in self._places]
        for name in fresh:
            self._places[name] = len(self._places)
        self._rows = np.vstack([self._rows, np.tile(self._fresh, (len(fresh), 1))])
        self._at = np.concatenate([self._at, np.full(len(fresh), np.nan)])
        return self.find(names)


def occurrences(places: Places) -> list[NDArray[np.int64]]:
    """The first fact of every entity, the second ones, and so on: positions."""
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(places[order]) != 0])
    number = np.empty(len(places), np.int64)
    number[order] = np.arange(len(places)) - np.repeat(starts, np.diff(np.r_[starts, len(places)]))
    return [np.flatnonzero(number == turn) for turn in range(int(number.max(initial=-1)) + 1)]
