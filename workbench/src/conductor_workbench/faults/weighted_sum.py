"""Graphs of the oracles' models: a weighted sum of the inputs, in which what is missing counts as zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper


def weighted_sum(
    name: str,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    outputs: Sequence[str],
    ending: Sequence[NodeProto],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    """The model's bytes. ``ending``: nodes that make ``outputs`` of ``sum``, ``flat`` and ``constants`` of theirs."""
    value = helper.make_tensor_value_info
    held: dict[str, NDArray[Any]] = {
        "zero": np.array(0, np.float32),
        "weights": weights,
        "bias": bias,
        "flat": np.array([-1], np.int64),
        **constants,
    }
    nodes = [
        helper.make_node("IsNaN", ["inputs"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "inputs"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        *ending,
    ]
    made = helper.make_graph(
        nodes,
        name,
        [value("inputs", TensorProto.FLOAT, ["rows", len(weights)])],
        [value(output, TensorProto.FLOAT, None) for output in outputs],
        [onnx.numpy_helper.from_array(array, constant) for constant, array in held.items()],
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(whole.SerializeToString())
