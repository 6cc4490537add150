"""The learned correction: gradient-boosted trees that start from the base's score.

Rare failures are neither repeated nor others left out: the base carries the rate, and calibration sets it right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from xgboost import XGBRegressor

from conductor_training.columns import Column
from conductor_training.onnx_graph import GraphBuilder, Value
from conductor_training.test_failure.columns import COLUMNS, FALLING, INDEX, RISING
from conductor_training.test_failure.scores import decayed_rate

Array = NDArray[np.float64]
INPUT_NAME = "inputs"
SEED = 0
START = 0.5
"""The base score that the converter adds: in training it is a margin of 0."""
FEATURE_COUNT = len(COLUMNS) + 1
_STEPS = 1024.0
"""The last bit of a rate must not decide where a split goes."""
_DIRECTIONS = tuple(1 if column in RISING else -1 if column in FALLING else 0 for column in COLUMNS)

_PARAMETERS = {
    "objective": "reg:logistic",
    "base_score": START,
    "tree_method": "hist",
    "max_bin": 64,
    "n_estimators": 100,
    "max_depth": 3,
    "learning_rate": 0.05,
    "min_child_weight": 5,
    "reg_lambda": 5.0,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "monotone_constraints": (*_DIRECTIONS, 1),
    # More threads add in another order, and the same data would no longer give the same model.
    "n_jobs": 1,
    "random_state": SEED,
}


def append_features(graph: GraphBuilder) -> Value:
    """What the trees see [rows, FEATURE_COUNT]: the columns, and the decayed rate."""
    rate = decayed_rate(graph, 0.5)
    rounded = graph.op("Div", graph.op("Round", graph.op("Mul", rate, _STEPS)), _STEPS)
    as_column = graph.op("Unsqueeze", rounded, graph.constant(np.asarray([1], dtype=np.int64)))
    return graph.concat(graph.input, as_column)


@cache
def _session() -> ort.InferenceSession:
    graph = GraphBuilder("features", INPUT_NAME, len(COLUMNS))
    graph.output("features", append_features(graph), (None, FEATURE_COUNT))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph.build().SerializeToString(), options, providers=["CPUExecutionProvider"])


def features(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the trees see, by the very nodes that the server runs."""
    (values,) = _session().run(None, {INPUT_NAME: inputs})
    return np.asarray(values, dtype=np.float32)


def fit_trees(
    inputs: NDArray[np.float32],
    happened: Array,
    base: Array,
    weights: Array | None = None,
    columns: Sequence[Column] = COLUMNS,
) -> XGBRegressor:
    """Fit what is to be added to the logits ``base`` [rows], by some of the columns; seeded and on one thread."""
    seen = features(inputs)
    # A column without values is never split on.
    seen[:, [INDEX[column.name] for column in COLUMNS if column not in columns]] = np.nan
    return XGBRegressor(**_PARAMETERS).fit(seen, happened, sample_weight=weights, base_margin=base)


def correction(trees: XGBRegressor, inputs: NDArray[np.float32]) -> Array:
    """What the trees add to the logit, of shape [rows]."""
    nothing = np.zeros(len(inputs), dtype=np.float32)
    margin: Array = trees.predict(features(inputs), output_margin=True, base_margin=nothing).astype(np.float64)
    return margin
