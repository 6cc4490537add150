"""From a frame to the graph's input, as the server gathers it from a request and the online store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conductor_training.build_duration.columns import COLUMNS, PASSED_COUNT
from conductor_training.build_duration.estimator import LEAST_HISTORY
from conductor_training.columns import Column
from conductor_training.frame import BuildFrame, epoch_seconds, feature_column


def frame_inputs(frame: BuildFrame) -> NDArray[np.float32]:
    """Inputs [rows, len(COLUMNS)] of a frame. Seconds are taken in float64 before anything is rounded to float32."""
    return np.column_stack([_values(frame, column) for column in COLUMNS]).astype(np.float32)


def trainable(frame: BuildFrame) -> BuildFrame:
    """The rows that have enough history to learn from."""
    known = _values(frame, PASSED_COUNT) >= LEAST_HISTORY
    return BuildFrame(frame.rows[known].reset_index(drop=True), frame.until)


def _values(frame: BuildFrame, column: Column) -> NDArray[np.float64]:
    if column.view is None:
        values = frame.rows[column.name].to_numpy(dtype=np.float64)
    else:
        values = frame.rows[feature_column(column.view, column.field)].to_numpy(dtype=np.float64)
        if column.elapsed:
            values = epoch_seconds(frame.rows.queued_time) - values
    return values if column.default is None else np.where(np.isnan(values), column.default, values)
