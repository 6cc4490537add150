"""The rule that predictions start from.

Between the medians of the latest 7 and the latest 15 passed builds; right after a level shift, when the latest 5 are
several typical errors away from the latest 15, the median of the latest 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conductor_training.build_duration.columns import INDEX, MEDIAN_5, MEDIAN_7, MEDIAN_15, TYPICAL_ERROR
from conductor_training.columns import Column
from conductor_training.onnx_graph import GraphBuilder, Value

SHIFT = 4.0
"""Typical errors that make a level shift. Where the typical error is unknown there is none."""

Array = NDArray[np.float64]


def column(inputs: NDArray[np.float32], which: Column) -> Array:
    """One column of ``inputs`` [rows, len(COLUMNS)]."""
    return inputs[:, INDEX[which.name]].astype(np.float64)


def base(inputs: NDArray[np.float32]) -> Array:
    """The base in seconds, of shape [rows]."""
    latest_5, latest_7, latest_15 = (column(inputs, median) for median in (MEDIAN_5, MEDIAN_7, MEDIAN_15))
    shifted = np.abs(np.log(latest_5 / latest_15)) > SHIFT * column(inputs, TYPICAL_ERROR)
    return np.where(shifted, latest_5, np.sqrt(latest_7 * latest_15))


def append_base(graph: GraphBuilder) -> Value:
    """Append the same to a graph; gives a tensor [rows]."""
    latest_5, latest_7, latest_15, typical = (
        graph.column(INDEX[which.name]) for which in (MEDIAN_5, MEDIAN_7, MEDIAN_15, TYPICAL_ERROR)
    )
    moved = graph.op("Abs", graph.op("Log", graph.op("Div", latest_5, latest_15)))
    shifted = graph.op("Greater", moved, graph.op("Mul", typical, SHIFT))
    return graph.op("Where", shifted, latest_5, graph.op("Sqrt", graph.op("Mul", latest_7, latest_15)))
