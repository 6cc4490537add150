"""Errors of predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_absolute_error(predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Mean of |predicted − actual|, both of shape [rows]."""
    return float(np.abs(predicted - actual).mean())


def mean_absolute_percentage_error(predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Mean of |predicted − actual| / actual as a share: 0.1 is 10 %. ``actual`` must be positive."""
    return float((np.abs(predicted - actual) / actual).mean())
