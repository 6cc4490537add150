"""The latest facts before each moment, as columns of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conductor_warehouse.features.arrays import numbers
from conductor_warehouse.features.definition import Rows
from conductor_warehouse.features.moments import Moments


@dataclass(frozen=True)
class History:
    """Facts of many entities in the order of (entity, time), in one array per column."""

    begins: NDArray[np.int64]
    """Position of each entity's first fact. Shape (entities,)."""
    counts: NDArray[np.int64]
    """Facts of each entity. Shape (entities,)."""
    columns: Sequence[NDArray[Any]]
    """Each of shape (facts,)."""


def history(arrays: Sequence[tuple[Any, ...]], entities: int, kinds: Sequence[type]) -> History:
    """Facts from rows of (number of the entity, an ``array_send`` for each column), whatever the order of the rows.

    ``kinds`` are float for float8 arrays and int for timestamptz arrays; neither may hold NULLs.
    """
    columns: list[list[NDArray[Any]]] = [[numbers(None, kind)] * entities for kind in kinds]
    for number, *values in arrays:
        for column, value, kind in zip(columns, values, kinds, strict=True):
            column[number] = numbers(value, kind)
    counts = np.array([len(values) for values in columns[0]], np.int64)
    return History(np.cumsum(counts) - counts, counts, [np.concatenate(column) for column in columns])


def owners(facts: History) -> NDArray[np.int64]:
    """Each fact's entity. Shape (facts,)."""
    return np.repeat(np.arange(len(facts.counts)), facts.counts)


def latest(values: NDArray[np.float64], facts: History, moments: Moments, until: NDArray[np.int64], size: int) -> Rows:
    """The latest ``size`` values of each moment, newest first; NaN where there are fewer. Shape (moments, size).

    Args:
        values: of the facts.
        facts: whose they are.
        moments: whose windows.
        until: for each moment, how many of its entity's facts are not beyond it.
        size: of the windows.
    """
    back = np.arange(size)
    index = until[:, None] - 1 - back
    inside = index >= 0
    index += facts.begins[moments.entity][:, None]
    index[~inside] = 0
    if not len(values):
        return np.full(index.shape, np.nan)
    found: Rows = np.where(inside, values[index], np.nan)
    return found


def count(window: Rows) -> NDArray[np.float64]:
    """Values of each window."""
    number: NDArray[np.float64] = np.count_nonzero(~np.isnan(window), axis=1).astype(np.float64)
    return number


def quantile(window: Rows, share: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Linearly interpolated quantile of each window, as PostgreSQL's percentile_cont; NaN for an empty one."""
    ordered = np.sort(window, axis=1)  # NaN goes last
    number = np.count_nonzero(~np.isnan(window), axis=1)
    place = share * np.maximum(number - 1, 0)
    low, high = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
    each = np.arange(len(window))
    below, above = ordered[each, low], ordered[each, high]
    found: NDArray[np.float64] = np.where(below == above, below, below + (place - low) * (above - below))
    return found


def mean(window: Rows, weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Mean of each window, added up newest first, so that it does not depend on the windows beside it; NaN if empty."""
    total, weight = np.zeros(len(window)), np.zeros(len(window))
    for place in range(window.shape[1]):
        known = ~np.isnan(window[:, place])
        share = 1.0 if weights is None else weights[place]
        total += np.where(known, share * np.where(known, window[:, place], 0.0), 0.0)
        weight += np.where(known, share, 0.0)
    with np.errstate(invalid="ignore"):
        quotient: NDArray[np.float64] = total / weight
    return quotient
