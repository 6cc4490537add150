"""Rows that follow from the row before: an entity's facts are gone through in their order, all entities at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from conductor_features.views import View
from conductor_warehouse.features.definition import Rows
from conductor_warehouse.features.moments import Moments, count_until

State = dict[str, NDArray[np.float64]]
"""The value of each field for some entities, one array per field."""
Step = Callable[[State, Mapping[str, NDArray[np.float64]]], State]
"""From the entities' state and one fact of each, the state after it."""


def fold(
    view: View,
    moments: Moments,
    seeds: Rows,
    owner: NDArray[np.int64],
    at: NDArray[np.int64],
    facts: Mapping[str, NDArray[np.float64]],
    step: Step,
) -> Rows:
    """Rows as of each moment. Shape (moments, fields).

    The n-th facts of all entities are one step: a batch takes as many steps as its busiest entity has facts.

    Args:
        view: names the fields.
        moments: where rows are wanted.
        seeds: the state before the first fact. Shape (entities, fields).
        owner: each fact's entity, ascending. Shape (facts,).
        at: each fact's time, ascending within an entity. Shape (facts,).
        facts: what each fact tells, one array per name. Shape (facts,).
        step: goes on by one fact.
    """
    begins = np.searchsorted(owner, np.arange(len(moments.entities)), side="left")
    counts = np.searchsorted(owner, np.arange(len(moments.entities)), side="right") - begins
    until = count_until(owner, at, moments, moments.at)
    current = seeds.copy()
    rows = np.where((until == 0)[:, None], current[moments.entity], np.nan)
    for place in range(int(counts.max(initial=0))):
        which = np.flatnonzero(counts > place)
        index = begins[which] + place
        state = {name: current[which, column] for column, name in enumerate(view.field_names)}
        after = step(state, {name: values[index] for name, values in facts.items()})
        current[which] = np.column_stack([after[name] for name in view.field_names])
        wanted = until == place + 1
        rows[wanted] = current[moments.entity[wanted]]
    return rows


def blend(mean: NDArray[np.float64], value: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """The exponential mean after one more value; the value itself where there is no mean yet."""
    return np.where(np.isnan(mean), value, factor * mean + (1 - factor) * value)
