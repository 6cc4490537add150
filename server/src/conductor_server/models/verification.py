"""What a graph is checked for before it is trusted. Runs in the child process, under its limits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.random import default_rng

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_server.models.sessions import (
    ModelRefused,
    answer_kind,
    check_golden_requests,
    check_signature,
    open_session,
    run_session,
)

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# A loop can run for ever on the one input that nobody tried; no model here needs one.
_REFUSED_OPERATORS = frozenset({"Loop", "Scan", "SequenceMap"})
_STRESS_ROWS = 256
_LARGE = 1e30


def verify(manifest: ModelManifest, graph: bytes) -> None:
    """Check a model from the outside in.

    Raises:
        ModelRefused: it may not serve.
    """
    _check_content(graph)
    session = open_session(graph)
    check_signature(session, manifest)
    check_golden_requests(session, manifest)
    # Rows unlike any that it was made from: what matters here is that it comes back, within time and memory.
    random = default_rng(0)
    shape = (_STRESS_ROWS, len(manifest.inputs))
    rows = random.choice([np.nan, 0.0, 1.0, -1.0, 60.0, 1e6, _LARGE, -_LARGE], size=shape).astype(np.float32)
    run_session(session, manifest.input_name, answer_kind(manifest).output_names, rows)


def _check_content(graph: bytes) -> None:
    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:
        raise ModelRefused("the graph is not ONNX") from error
    if model.functions or model.training_info:
        raise ModelRefused("functions and training graphs are not taken")
    domains = {opset.domain for opset in model.opset_import}
    for nested in _graphs(model.graph):
        for tensor in _tensors(nested):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise ModelRefused("the graph refers to data outside of itself")
        domains.update(node.domain for node in nested.node)
        refused = _REFUSED_OPERATORS.intersection(node.op_type for node in nested.node)
        if refused:
            raise ModelRefused(f"the operators {', '.join(sorted(refused))} are not taken")
    if not domains <= _DOMAINS:
        raise ModelRefused(f"operators of the domains {', '.join(sorted(domains - _DOMAINS))} are not taken")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that are nested in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(nested)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                yield from (sparse.values, sparse.indices)
