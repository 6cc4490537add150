"""What is published of every model: the graph, and what its manifest says of columns and golden requests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import Blob, GoldenRequest, InputColumn, ModelManifest
from conductor_training.columns import Column

GOLDEN_ROWS = 8


class ExportDiffers(RuntimeError):
    """The exported graph does not compute what the estimator computes."""


@dataclass(frozen=True)
class Bundle:
    """A model, ready to be published."""

    manifest: ModelManifest
    graph: bytes


def run(
    content: bytes, input_name: str, output_names: Sequence[str], inputs: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What a graph says of ``inputs`` [rows, columns]: [rows, outputs]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.column_stack(session.run(list(output_names), {input_name: inputs}))


def blob(content: bytes) -> Blob:
    """The graph as a manifest names it."""
    return Blob(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def input_columns(columns: Sequence[Column], inputs: NDArray[np.float32]) -> list[InputColumn]:
    """The columns, each with its median over the training rows [rows, columns]."""
    found = []
    for column, values in zip(columns, inputs.T, strict=True):
        proto = column.to_proto()
        known = values[~np.isnan(values)]
        if len(known):
            proto.typical_value = float(np.median(known))
        found.append(proto)
    return found


def golden_requests(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> list[GoldenRequest]:
    """Some of the training rows, evenly apart, with what the graph says of them."""
    chosen = np.unique(np.linspace(0, len(inputs) - 1, GOLDEN_ROWS).astype(int))
    return [GoldenRequest(inputs=inputs[row].tolist(), outputs=outputs[row].tolist()) for row in chosen]
