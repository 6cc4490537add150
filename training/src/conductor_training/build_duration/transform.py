"""From input columns to what the trees see.

It is part of the graph, and training runs the very same nodes: the trees are fitted to exactly what they are served.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from conductor_training.build_duration.base import append_base
from conductor_training.build_duration.columns import COLUMNS, INDEX, PLAIN, RATIOS
from conductor_training.onnx_graph import GraphBuilder, Value

INPUT_NAME = "inputs"
_STEPS = 1024.0
"""Log ratios are rounded to 1/1024, about 0.1 %: the last bit of a logarithm must not decide where a split goes."""


def append_transform(graph: GraphBuilder) -> Value:
    """Append the transformation; gives the tensor [rows, len(RATIOS) + len(PLAIN)] for the trees."""
    base = graph.op("Unsqueeze", append_base(graph), graph.constant(np.asarray([1], dtype=np.int64)))
    ratio = graph.op("Div", graph.columns([INDEX[column.name] for column in RATIOS]), base)
    logarithm = graph.op("Div", graph.op("Round", graph.op("Mul", graph.op("Log", ratio), _STEPS)), _STEPS)
    return graph.concat(logarithm, graph.columns([INDEX[column.name] for column in PLAIN]))


@cache
def _session() -> ort.InferenceSession:
    graph = GraphBuilder("transform", INPUT_NAME, len(COLUMNS))
    graph.output("features", append_transform(graph), (None, len(RATIOS) + len(PLAIN)))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph.build().SerializeToString(), options, providers=["CPUExecutionProvider"])


def transform(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features [rows, len(RATIOS) + len(PLAIN)] of ``inputs`` [rows, len(COLUMNS)]."""
    (features,) = _session().run(None, {INPUT_NAME: inputs})
    return np.asarray(features, dtype=np.float32)
