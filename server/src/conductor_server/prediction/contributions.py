"""What moved a prediction: each column in turn is put to its typical level, all else equal.

This is one-at-a-time replacement, not Shapley values: it needs no model internals and one extra row per column, and
says nothing of interactions; the effects need not sum up to anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_server.prediction.answers import LONGEST_SECONDS, Contribution
from conductor_server.prediction.columns import ColumnPlan


@dataclass(frozen=True, slots=True)
class Variants:
    """Input rows that each differ from one that is explained in a single column."""

    of: NDArray[np.intp]
    """Which row each is a variant of. Shape (k,)."""
    column: NDArray[np.intp]
    """The column that is put to its typical level. Shape (k,)."""
    rows: NDArray[np.float32]
    """Shape (k, columns)."""


def variants(plan: ColumnPlan, inputs: NDArray[np.float32], explained: NDArray[np.bool_] | None = None) -> Variants:
    """A variant for every column of every row that differs from its typical level, in the order of the rows.

    Args:
        plan: The model's columns.
        inputs: Shape (m, columns).
        explained: Which of the rows, if not all. Shape (m,).
    """
    # A missing value differs from any level; a column without a level can't be told of.
    differs = ~np.isnan(plan.typical) & (inputs != plan.typical)
    if explained is not None:
        differs &= explained[:, None]
    of, column = differs.nonzero()
    rows = inputs[of]
    rows[np.arange(len(of)), column] = plan.typical[column]
    return Variants(of, column, rows)


def effects(
    plan: ColumnPlan,
    made: Variants,
    medians_seconds: NDArray[np.float64],
    variant_medians_seconds: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What each column added to the predictions of the rows that are explained, ``[m, columns]``; 0 for no effect.

    Args:
        plan: The model's columns.
        made: The rows' variants.
        medians_seconds: The predictions. Shape (m,).
        variant_medians_seconds: What they would be. Shape (k,).
    """
    found = np.zeros((len(medians_seconds), len(plan.names)))
    found[made.of, made.column] = medians_seconds[made.of] - variant_medians_seconds
    found[~(np.abs(found) <= LONGEST_SECONDS)] = 0.0  # a median that can't be one explains nothing
    return found


def contributions(
    plan: ColumnPlan, values: NDArray[np.float64], found: NDArray[np.float64], counts: Sequence[int]
) -> list[list[Contribution]]:
    """For each row its largest effects, largest first; columns without any effect are left out.

    Args:
        plan: The model's columns.
        values: The rows' values as gathered. Shape (n, columns).
        found: Their effects. Shape (n, columns).
        counts: How many to tell of each row.
    """
    order = np.argsort(-np.abs(found), axis=1, kind="stable")[:, : max(counts, default=0)]
    lines = np.arange(len(found))[:, None]
    largest, level = found[lines, order].tolist(), values[lines, order].tolist()
    names = plan.names
    return [
        [
            Contribution(names[column], value, effect)
            for column, value, effect in zip(columns[:count], its_values, its_effects, strict=False)
            if effect
        ]
        for columns, its_values, its_effects, count in zip(order.tolist(), level, largest, counts, strict=True)
    ]
