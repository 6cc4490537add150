"""The estimator as one ONNX graph: float32 "inputs" [rows, len(COLUMNS)] to "probability" [rows]."""

from __future__ import annotations

from onnx import ModelProto
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from xgboost import XGBRegressor

from conductor_training.onnx_graph import OPSET, GraphBuilder, Value
from conductor_training.test_failure.columns import COLUMNS
from conductor_training.test_failure.estimator import Estimator, score_logit
from conductor_training.test_failure.trees import FEATURE_COUNT, INPUT_NAME, START, append_features

PROBABILITY = "probability"


def export_graph(estimator: Estimator) -> ModelProto:
    """The graph; trees only where the candidate uses them."""
    graph = GraphBuilder("test-failure", INPUT_NAME, len(COLUMNS))
    learned: Value | float = 0.0
    if estimator.candidate.weight > 0 and estimator.trees is not None:
        margin = graph.trees(_convert(estimator.trees), append_features(graph))
        learned = graph.op("Sub", margin, START)
    return _finish(graph, estimator, learned)


def export_judged(estimator: Estimator) -> ModelProto:
    """The same nodes, with what the trees add told by one more column of the input, the last one."""
    graph = GraphBuilder("test-failure-judged", INPUT_NAME, len(COLUMNS) + 1)
    return _finish(graph, estimator, graph.column(len(COLUMNS)))


def _finish(graph: GraphBuilder, estimator: Estimator, learned: Value | float) -> ModelProto:
    logit = score_logit(graph, estimator.candidate, estimator.unknown, learned)
    graph.output(PROBABILITY, estimator.calibration.apply(graph, logit))
    return graph.build()


def _convert(trees: XGBRegressor) -> ModelProto:
    shape = [("features", FloatTensorType([None, FEATURE_COUNT]))]
    converted: ModelProto = convert_xgboost(trees, initial_types=shape, target_opset=OPSET)
    return converted
