"""The order that finds failures earliest by time spent: the likeliest per second first."""

from __future__ import annotations

import numpy as np

from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.columns import INDEX
from conductor_training.test_failure.frame import TestFrame

OVERHEAD = 0.01
"""Seconds that every test takes beside its own: without them one that takes no time would always come first."""


def expected_seconds(frame: TestFrame) -> Array:
    """What each row's test will take, by its own past; else the median of its run's tests, 1 where none is known."""
    seconds = frame.inputs[:, INDEX["test.mean_duration_10"]].astype(np.float64)
    begins = np.flatnonzero(np.diff(frame.run, prepend=-1))
    for part in np.split(np.arange(len(seconds)), begins[1:]):
        unknown = np.isnan(seconds[part])
        if unknown.any():
            seconds[part[unknown]] = 1.0 if unknown.all() else np.median(seconds[part[~unknown]])
    return seconds


def per_second(probabilities: Array, seconds: Array) -> Array:
    """Scores to order by: the logarithm of the probability of a failure in each second spent."""
    scores: Array = np.log(np.maximum(probabilities, 1e-12)) - np.log(seconds + OVERHEAD)
    return scores
