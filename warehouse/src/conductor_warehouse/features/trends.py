"""Trends within windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conductor_warehouse.features.definition import Rows
from conductor_warehouse.features.windows import count

_DAY = 86_400.0


def slope(values: Rows, times: Rows) -> NDArray[np.float64]:
    """Least-squares slope of each window in 1/day; NaN with fewer than 3 values, or all at one moment.

    Added up newest first, so that it does not depend on the windows beside it.

    Args:
        values: shape (windows, size), NaN where there are fewer.
        times: seconds, of the same shape.
    """
    number = count(values)
    days = (times - times[:, :1]) / _DAY
    known = ~np.isnan(values)
    sums = {name: np.zeros(len(values)) for name in ("x", "y", "xx", "xy")}
    for place in range(values.shape[1]):
        x = np.where(known[:, place], days[:, place], 0.0)
        # Values are taken relative to the newest: large levels would swallow small slopes.
        y = np.where(known[:, place], values[:, place] - values[:, 0], 0.0)
        sums["x"] += x
        sums["y"] += y
        sums["xx"] += x * x
        sums["xy"] += x * y
    spread = number * sums["xx"] - sums["x"] * sums["x"]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((number >= 3) & (spread > 0), (number * sums["xy"] - sums["x"] * sums["y"]) / spread, np.nan)
