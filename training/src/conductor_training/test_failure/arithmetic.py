"""The operations that scores are made of, run in numpy; ``onnx_graph.GraphBuilder`` has the same ones and appends
nodes.

So a score is written once, and is what training computes (float64) and what the server runs (float32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]

_OPERATIONS: Mapping[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Exp": np.exp,
    "Log": np.log,
    "Neg": np.negative,
    "Min": np.minimum,
    "Max": np.maximum,
    "Sigmoid": expit,
    "Softplus": lambda value: np.logaddexp(0.0, value),
    "IsNaN": np.isnan,
    "Where": np.where,
}


class InNumpy:
    """Operations on ``inputs`` [rows, columns]; every tensor is of shape [rows]."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._inputs = inputs.astype(np.float64)

    def op(self, kind: str, *inputs: Any) -> Array:
        """One operation of ONNX."""
        result: Array = _OPERATIONS[kind](*inputs)
        return result

    def column(self, index: int) -> Array:
        """One column of the input."""
        column: Array = self._inputs[:, index]
        return column

    def or_else(self, tensor: Array, default: float) -> Array:
        """``tensor`` with NaN replaced."""
        known: Array = np.where(np.isnan(tensor), default, tensor)
        return known

    def clip(self, tensor: Array, lower: Any, upper: Any) -> Array:
        """Elementwise minimum and maximum."""
        kept: Array = np.minimum(np.maximum(tensor, lower), upper)
        return kept
