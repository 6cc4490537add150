"""ONNX Runtime sessions, made alike in the verifying child and in the serving process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import ModelManifest

_ERRORS_ONLY = 3
_GOLDEN_ABSOLUTE_SECONDS = 0.01
_GOLDEN_ABSOLUTE_PROBABILITY = 1e-4
_GOLDEN_RELATIVE = 1e-4


class ModelRefused(Exception):
    """A model may not serve; the message is the reason."""


@dataclass(frozen=True)
class AnswerKind:
    """What a graph answers with."""

    output_names: tuple[str, ...]
    """In the order of the columns that ``run_session`` gives."""
    tolerance: float
    """Absolute difference between two runs of the same graph that means nothing."""
    is_answer: Callable[[NDArray[np.float64]], bool]
    """Whether outputs ``[n, outputs]`` can be answers."""


def answer_kind(manifest: ModelManifest) -> AnswerKind:
    """The kind of a model's answers: lower bound, median and upper bound in seconds, or a probability.

    Raises:
        ModelRefused: the manifest tells none, or both.
    """
    match manifest.HasField("outputs"), manifest.HasField("probability"):
        case True, False:
            names = (manifest.outputs.lower, manifest.outputs.median, manifest.outputs.upper)
            return AnswerKind(names, _GOLDEN_ABSOLUTE_SECONDS, _are_intervals)
        case False, True:
            return AnswerKind((manifest.probability.probability,), _GOLDEN_ABSOLUTE_PROBABILITY, _are_probabilities)
        case _:
            raise ModelRefused("the manifest must tell either quantiles or a probability that the graph gives")


def _are_intervals(outputs: NDArray[np.float64]) -> bool:
    ordered = (outputs[:, 0] <= outputs[:, 1]) & (outputs[:, 1] <= outputs[:, 2])
    return bool(np.isfinite(outputs).all() and ordered.all())


def _are_probabilities(outputs: NDArray[np.float64]) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1)).all())


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
    session: Any, input_name: str, output_names: tuple[str, ...], inputs: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Run rows ``[n, columns]``; gives what the outputs say, ``[n, outputs]``.

    Raises:
        ModelRefused: the graph fails, or answers in another shape.
    """
    try:
        outputs = session.run(output_names, {input_name: inputs})
        found = np.empty((len(inputs), len(outputs)))
        for at, output in enumerate(outputs):
            found[:, at] = output.reshape(len(inputs))
        return found
    except Exception as error:
        raise ModelRefused(f"the graph can't be run: {_first_line(error)}") from error


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
    names = answer_kind(manifest).output_names
    if any(types.get(name) != "tensor(float)" for name in names):
        raise ModelRefused(f"the graph must give float tensors {', '.join(names)}")


def check_golden_requests(session: Any, manifest: ModelManifest) -> None:
    """Run the golden requests, which warms the session too.

    Raises:
        ModelRefused: there are none, or the graph answers one differently than it did when it was made.
    """
    golden, kind = manifest.golden_requests, answer_kind(manifest)
    shape = (len(manifest.inputs), len(kind.output_names))
    if not golden or any((len(g.inputs), len(g.outputs)) != shape for g in golden):
        raise ModelRefused("the manifest must hold golden requests, each a whole row with its answer")
    inputs = np.array([g.inputs for g in golden], np.float32)
    expected = np.array([g.outputs for g in golden], np.float64)
    actual = run_session(session, manifest.input_name, kind.output_names, inputs)
    if not np.allclose(actual, expected, rtol=_GOLDEN_RELATIVE, atol=kind.tolerance):
        worst = float(np.nanmax(np.abs(actual - expected), initial=0.0))
        raise ModelRefused(f"the graph answers golden requests differently, by up to {worst}")
    if not kind.is_answer(actual):
        raise ModelRefused("the graph answers golden requests with what can't be an answer")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
