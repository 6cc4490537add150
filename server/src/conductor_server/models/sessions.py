"""ONNX Runtime sessions, made alike in the verifying child and in the serving process."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import ModelManifest

_ERRORS_ONLY = 3
_GOLDEN_ABSOLUTE_SECONDS = 0.01
_GOLDEN_RELATIVE = 1e-4


class ModelRefused(Exception):
    """A model may not serve; the message is the reason."""


def open_session(graph: bytes) -> Any:
    """A session with one thread and no spinning: the process's cores belong to its requests.

    Without an arena: each session's own would keep 50 kB, and what its largest batch took for ever (ADR 20).

    Raises:
        ModelRefused: ONNX Runtime does not take the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Otherwise bytes may choose to be read as a format that the checks before this did not look at.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefused(f"ONNX Runtime refuses the graph: {_first_line(error)}") from error
    # It keeps the graph's bytes in case that other providers are set later; none ever are.
    session._model_bytes = None
    return session


def run_session(
    session: Any, input_name: str, output_names: tuple[str, str, str], inputs: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Run rows ``[n, columns]``; gives lower bound, median and upper bound in seconds, ``[n, 3]``.

    Raises:
        ModelRefused: the graph fails, or answers in another shape.
    """
    try:
        outputs = session.run(output_names, {input_name: inputs})
        return np.stack([np.asarray(output, np.float64).reshape(len(inputs)) for output in outputs], axis=1)
    except Exception as error:
        raise ModelRefused(f"the graph can't be run: {_first_line(error)}") from error


def output_names(manifest: ModelManifest) -> tuple[str, str, str]:
    """The outputs in the order lower bound, median, upper bound."""
    return manifest.outputs.lower, manifest.outputs.median, manifest.outputs.upper


def check_signature(session: Any, manifest: ModelManifest) -> None:
    """Raises:
    ModelRefused: the graph's inputs or outputs are not what the manifest says.
    """
    inputs = session.get_inputs()
    columns = len(manifest.inputs)
    if [node.name for node in inputs] != [manifest.input_name] or inputs[0].type != "tensor(float)":
        raise ModelRefused(f"the graph must take one float tensor {manifest.input_name!r}")
    if len(inputs[0].shape) != 2 or inputs[0].shape[1] not in (columns, None) or isinstance(inputs[0].shape[0], int):
        raise ModelRefused(f"the graph must take rows of {columns} columns, not {inputs[0].shape}")
    types = {node.name: node.type for node in session.get_outputs()}
    if any(types.get(name) != "tensor(float)" for name in output_names(manifest)):
        raise ModelRefused(f"the graph must give float tensors {', '.join(output_names(manifest))}")


def check_golden_requests(session: Any, manifest: ModelManifest) -> None:
    """Run the golden requests, which warms the session too.

    Raises:
        ModelRefused: there are none, or the graph answers one differently than it did when it was made.
    """
    golden = manifest.golden_requests
    columns = len(manifest.inputs)
    if not golden or any(len(g.inputs) != columns or len(g.outputs) != 3 for g in golden):
        raise ModelRefused("the manifest must hold golden requests, each a whole row with three answers")
    inputs = np.array([g.inputs for g in golden], np.float32)
    expected = np.array([g.outputs for g in golden], np.float64)
    actual = run_session(session, manifest.input_name, output_names(manifest), inputs)
    if not np.allclose(actual, expected, rtol=_GOLDEN_RELATIVE, atol=_GOLDEN_ABSOLUTE_SECONDS):
        worst = float(np.nanmax(np.abs(actual - expected), initial=0.0))
        raise ModelRefused(f"the graph answers golden requests differently, by up to {worst} s")
    ordered = (actual[:, 0] <= actual[:, 1]) & (actual[:, 1] <= actual[:, 2])
    if not (np.isfinite(actual).all() and ordered.all()):
        raise ModelRefused("the graph answers golden requests with bounds that are no interval")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
