"""Write ONNX graphs as one writes expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 15
ML_OPSET = 3
IR_VERSION = 8


class Value(str):
    """Name of a tensor within a graph."""

    __slots__ = ()


class GraphBuilder:
    """Collects nodes. All tensors are float32 unless said otherwise; names are counted, so graphs are reproducible."""

    def __init__(self, name: str, input_name: str, column_count: int) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._input = helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [None, column_count])
        self.input = Value(input_name)

    def op(self, kind: str, *inputs: Value | float, domain: str = "", **attributes: Any) -> Value:
        """Append a node with one output; numbers become constants."""
        names = [item if isinstance(item, Value) else self.constant(np.float32(item)) for item in inputs]
        output = Value(f"{kind.lower()}_{len(self._nodes)}")
        self._nodes.append(helper.make_node(kind, names, [output], name=output, domain=domain, **attributes))
        return output

    def constant(self, value: np.ndarray | np.generic) -> Value:
        """A constant tensor."""
        name = Value(f"constant_{len(self._constants)}")
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def columns(self, indices: Sequence[int]) -> Value:
        """Columns of the input as a tensor [rows, len(indices)]."""
        return self.op("Gather", self.input, self.constant(np.asarray(indices, dtype=np.int64)), axis=1)

    def column(self, index: int) -> Value:
        """One column of the input as a tensor [rows]."""
        return self.op("Gather", self.input, self.constant(np.asarray(index, dtype=np.int64)), axis=1)

    def concat(self, *tensors: Value) -> Value:
        """Tensors [rows, …] side by side."""
        return self.op("Concat", *tensors, axis=1)

    def or_else(self, tensor: Value, default: float) -> Value:
        """``tensor`` with NaN replaced."""
        return self.op("Where", self.op("IsNaN", tensor), default, tensor)

    def clip(self, tensor: Value, lower: Value | float, upper: Value | float) -> Value:
        """Elementwise minimum and maximum; the bounds may be tensors."""
        return self.op("Min", self.op("Max", tensor, lower), upper)

    def trees(self, converted: onnx.ModelProto, features: Value) -> Value:
        """Append the tree ensemble of a converted estimator; gives a tensor [rows].

        Raises ValueError when the conversion is anything but one tree ensemble: what else it holds would be lost.
        """
        nodes = list(converted.graph.node)
        if [node.op_type for node in nodes] != ["TreeEnsembleRegressor"] or converted.graph.initializer:
            raise ValueError(f"expected one TreeEnsembleRegressor, got {[node.op_type for node in nodes]}")
        node = onnx.NodeProto()
        node.CopyFrom(nodes[0])
        output = Value(f"trees_{len(self._nodes)}")
        node.name = output
        node.input[:] = [features]
        node.output[:] = [output]
        self._nodes.append(node)
        return self.op("Squeeze", output, self.constant(np.asarray([1], dtype=np.int64)))

    def output(self, name: str, tensor: Value, shape: Sequence[int | None] = (None,)) -> None:
        """Declare ``tensor`` an output called ``name``."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def build(self) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self._nodes, self._name, [self._input], self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="conductor")
        onnx.checker.check_model(model)
        return model
