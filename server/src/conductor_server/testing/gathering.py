"""From feature rows and request columns to a model's input rows, for all tests of a run at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_server.prediction.columns import ColumnPlan
from conductor_server.prediction.gathering import graph_inputs
from conductor_server.testing.rows import Array, Mask, Rows


@dataclass(frozen=True)
class TestInputs:
    """Input rows of a model, one for each test."""

    __test__ = False

    values: Array
    """``[n, columns]`` as gathered; NaN is missing."""
    inputs: NDArray[np.float32]
    answerable: Mask
    """``[n]``: every required column is there."""


def gather(
    plan: ColumnPlan, moment_us: int, rows: Mapping[str, Rows], requested: Mapping[str, Array | float]
) -> TestInputs:
    """A model's input rows.

    Args:
        plan: the model's columns.
        moment_us: the question's time, in microseconds since the epoch.
        rows: of each view that the plan needs, by its key: those that may be used at that time.
        requested: request columns, of each test or of all; those that are not there are missing.
    """
    count = len(next(iter(rows.values())))
    values = np.full((count, len(plan.names)), np.nan)
    for position, name in plan.requests:
        values[:, position] = requested.get(name, np.nan)
    for part in plan.views:
        of_view = rows[part.view.key]
        found = of_view.values[:, part.fields]
        if part.any_elapsed:
            found[:, part.elapsed] = moment_us / 1e6 - found[:, part.elapsed]
        age_us = of_view.age_us(moment_us)
        if (age_us > part.least_maximum_age_us).any():
            found[age_us[:, None] > part.maximum_age_us] = np.nan
        values[:, part.columns] = found
    return TestInputs(values, *graph_inputs(plan, values))
