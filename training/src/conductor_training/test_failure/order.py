"""The order that finds failures earliest by time spent: the likeliest per second first."""

from __future__ import annotations

import numpy as np

from conductor_model_store.test_order import known_or_typical, per_second
from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.columns import INDEX
from conductor_training.test_failure.frame import TestFrame

__all__ = ["expected_seconds", "per_second"]


def expected_seconds(frame: TestFrame) -> Array:
    """What each row's test will take, by its own past; else the median of its run's tests, 1 where none is known."""
    seconds = frame.inputs[:, INDEX["test.mean_duration_10"]].astype(np.float64)
    begins = np.flatnonzero(np.diff(frame.run, prepend=-1))
    runs = np.split(np.arange(len(seconds)), begins[1:])
    return np.concatenate([known_or_typical(seconds[run]) for run in runs])
