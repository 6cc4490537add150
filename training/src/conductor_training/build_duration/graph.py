"""The estimator as one ONNX graph. Reads beside ``estimator.py``, step by step."""

from __future__ import annotations

from onnx import ModelProto
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from xgboost import XGBRegressor

from conductor_training.build_duration.base import append_base
from conductor_training.build_duration.columns import COLUMNS, INDEX, PASSED_COUNT, PLAIN, RATIOS, SPREAD
from conductor_training.build_duration.estimator import (
    CENTRE_SHARE,
    LEAST_HISTORY,
    NARROWEST,
    TAIL_SHARE,
    Estimator,
)
from conductor_training.build_duration.heads import LARGEST_SPREAD, SMALLEST_SPREAD, UNKNOWN_SPREAD
from conductor_training.build_duration.transform import INPUT_NAME, append_transform
from conductor_training.columns import Column
from conductor_training.onnx_graph import OPSET, GraphBuilder, Value

LOWER, MEDIAN, UPPER = "lower", "median", "upper"


def export_graph(estimator: Estimator) -> ModelProto:
    """The graph: float32 "inputs" [rows, len(COLUMNS)] to "lower", "median" and "upper" [rows] in seconds."""
    graph = GraphBuilder("build-duration", INPUT_NAME, len(COLUMNS))

    def input_column(which: Column) -> Value:
        return graph.column(INDEX[which.name])

    features = append_transform(graph)
    base = append_base(graph)
    known = graph.op("GreaterOrEqual", input_column(PASSED_COUNT), LEAST_HISTORY)

    def head(fitted: XGBRegressor, neutral: float) -> Value:
        return graph.op("Where", known, graph.trees(_convert(fitted), features), neutral)

    spread = graph.clip(graph.or_else(input_column(SPREAD), UNKNOWN_SPREAD), SMALLEST_SPREAD, LARGEST_SPREAD)
    candidate = estimator.candidate
    if candidate.rule is not None:
        centre = graph.op("Log", graph.op("Div", input_column(candidate.rule), base))
    else:
        learned = graph.op("Mul", head(estimator.heads.median, 0.0), candidate.weight)
        centre = graph.clip(learned, graph.op("Neg", spread), spread)
    plain = graph.op("Mul", centre, CENTRE_SHARE)

    def bound(fitted: XGBRegressor, sign: float) -> Value:
        recent = graph.op("Mul", graph.op("Add", plain, graph.op("Mul", spread, sign)), 1 - TAIL_SHARE)
        learned = graph.op("Mul", graph.op("Mul", head(fitted, sign), spread), TAIL_SHARE)
        return graph.op("Add", recent, learned)

    lower, upper = bound(estimator.heads.lower, -1.0), bound(estimator.heads.upper, 1.0)
    middle = graph.op("Mul", graph.op("Add", lower, upper), 0.5)
    half_width = graph.op("Max", graph.op("Mul", graph.op("Sub", upper, lower), 0.5), NARROWEST)
    reach = graph.op("Mul", half_width, estimator.factor)

    def seconds(logarithm: Value) -> Value:
        return graph.op("Mul", base, graph.op("Exp", logarithm))

    graph.output(LOWER, seconds(graph.op("Min", graph.op("Sub", middle, reach), centre)))
    graph.output(MEDIAN, seconds(centre))
    graph.output(UPPER, seconds(graph.op("Max", graph.op("Add", middle, reach), centre)))
    return graph.build()


def _convert(head: XGBRegressor) -> ModelProto:
    shape = [("features", FloatTensorType([None, len(RATIOS) + len(PLAIN)]))]
    converted: ModelProto = convert_xgboost(head, initial_types=shape, target_opset=OPSET)
    return converted
