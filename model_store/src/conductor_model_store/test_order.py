"""The order of tests that finds failures earliest by time spent: training judges it, the server answers with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

OVERHEAD = 0.01
"""Seconds that every test takes beside its own: without them one that takes no time would always come first."""
UNKNOWN_SECONDS = 1.0
"""Of each test, where the time of none is known."""


def known_or_typical(seconds: Array) -> Array:
    """The tests' times; where one is NaN the median of the others, 1 s where none is known."""
    unknown = np.isnan(seconds)
    if not unknown.any():
        return seconds
    typical = UNKNOWN_SECONDS if unknown.all() else np.median(seconds[~unknown])
    return np.where(unknown, typical, seconds)


def per_second(probabilities: Array, seconds: Array) -> Array:
    """Scores to order by: the logarithm of the probability of a failure in each second spent."""
    scores: Array = np.log(np.maximum(probabilities, 1e-12)) - np.log(seconds + OVERHEAD)
    return scores
