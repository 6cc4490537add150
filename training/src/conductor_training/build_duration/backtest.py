"""The time-ordered backtest: what models fitted before each stretch of the history say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from conductor_training.build_duration.base import Array
from conductor_training.build_duration.estimator import apply_history_rule
from conductor_training.build_duration.heads import HeadValues, fit_heads
from conductor_training.build_duration.inputs import frame_inputs
from conductor_training.frame import BuildFrame, epoch_seconds

FOLDS = (0.40, 0.55, 0.70, 0.85, 1.0)
"""Ends of the stretches as shares of the rows: an expanding window."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Backtest:
    """Rows that were predicted by models that had seen only what ended before them, in queued order."""

    inputs: NDArray[np.float32]
    durations: Array
    values: HeadValues


def run_backtest(frame: BuildFrame, progress: Progress) -> Backtest:
    """Backtest over a frame in queued order. Its first 40 % are only learned from."""
    inputs = frame_inputs(frame)
    durations = frame.rows.duration.to_numpy(dtype=np.float64)
    queued, completed = epoch_seconds(frame.rows.queued_time), epoch_seconds(frame.rows.completed_time)
    ends = [int(len(durations) * share) for share in FOLDS]
    values = []
    for number, (start, end) in enumerate(pairwise(ends), start=1):
        progress(f"backtest {number}/{len(ends) - 1}")
        # A build that was still running when the stretch began was not known then.
        past = np.flatnonzero(completed[:start] < queued[start])
        heads = fit_heads(inputs[past], durations[past])
        values.append(apply_history_rule(heads.predict(inputs[start:end]), inputs[start:end]))
    return Backtest(
        inputs=inputs[ends[0] :],
        durations=durations[ends[0] :],
        values=HeadValues(
            median=np.concatenate([part.median for part in values]),
            lower=np.concatenate([part.lower for part in values]),
            upper=np.concatenate([part.upper for part in values]),
        ),
    )
