"""What moved a prediction: each column in turn is put to its typical level, all else equal.

This is one-at-a-time replacement, not Shapley values: it needs no model internals and one extra row per column, and
says nothing of interactions; the effects need not sum up to anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conductor_server.prediction.answers import Contribution
from conductor_server.prediction.columns import ColumnPlan


def variants(plan: ColumnPlan, row: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The columns that differ from their typical level, and the row with each of them put to it, ``[k, columns]``."""
    # A missing value differs from any level; a column without a level can't be told of.
    columns = np.flatnonzero(~np.isnan(plan.typical) & (row != plan.typical))
    rows = np.repeat(row[None, :], len(columns), axis=0)
    rows[np.arange(len(columns)), columns] = plan.typical[columns]
    return columns, rows


def contributions(
    plan: ColumnPlan,
    values: NDArray[np.float64],
    columns: NDArray[np.intp],
    *,
    median_seconds: float,
    variant_medians_seconds: NDArray[np.float64],
    count: int,
) -> tuple[Contribution, ...]:
    """The ``count`` largest effects, largest first; columns without any effect are left out.

    Args:
        plan: The model's columns.
        values: The columns' values as gathered.
        columns: The columns that variants were made of.
        median_seconds: The prediction.
        variant_medians_seconds: What it would be, by variant.
        count: How many to tell.
    """
    effects = median_seconds - variant_medians_seconds
    told = np.isfinite(effects) & (effects != 0)
    order = np.argsort(-np.abs(effects[told]), kind="stable")[:count]
    return tuple(
        Contribution(plan.names[column], float(values[column]), float(effect))
        for column, effect in zip(columns[told][order], effects[told][order], strict=True)
    )
