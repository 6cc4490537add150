"""What two versions of a model differ in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from conductor_model_store.records import LoadedModel

Row = dict[str, object]

_APART = ("inputs", "golden_requests", "candidates")
"""Told by themselves."""


def fields(a: LoadedModel, b: LoadedModel) -> list[Row]:
    """Fields of the manifests that differ, but columns, candidates and golden requests."""
    found_a, found_b = _flat(a), _flat(b)
    return [
        {"field": name, "a": found_a.get(name), "b": found_b.get(name)}
        for name in sorted({*found_a, *found_b})
        if found_a.get(name) != found_b.get(name)
    ]


def columns(a: LoadedModel, b: LoadedModel) -> list[Row]:
    """Columns that only one has, stand elsewhere, or come from elsewhere."""
    found_a, found_b = _columns(a), _columns(b)
    return [
        {"column": name, "a": found_a.get(name), "b": found_b.get(name)}
        for name in dict.fromkeys([*found_a, *found_b])
        if found_a.get(name) != found_b.get(name)
    ]


def metrics(a: LoadedModel, b: LoadedModel) -> list[Row]:
    """How the chosen candidates did on their backtests."""
    chosen = [next((c for c in model.manifest.candidates if c.chosen), None) for model in (a, b)]
    names = ("candidate", "row_count", "mae_seconds", "mape", "coverage")
    return [
        {"metric": name, **{side: getattr(c, name, None) for side, c in zip("ab", chosen, strict=True)}}
        for name in names
    ]


def answers(a: LoadedModel, b: LoadedModel) -> list[Row]:
    """Medians of both, in seconds, to the golden requests of both; empty where they don't take the same columns.

    Raises ImportError where ONNX Runtime is not installed.
    """
    if [column.name for column in a.manifest.inputs] != [column.name for column in b.manifest.inputs]:
        return []
    golden = [(name, request) for name, model in (("a", a), ("b", b)) for request in model.manifest.golden_requests]
    if not golden:
        return []
    rows = [list(request.inputs) for _, request in golden]
    return [
        {"golden_request_of": name, "a_seconds": of_a, "b_seconds": of_b, "b_over_a": of_b / of_a if of_a else None}
        for (name, _), of_a, of_b in zip(golden, _medians(a, rows), _medians(b, rows), strict=True)
    ]


def _medians(model: LoadedModel, rows: Sequence[Sequence[float]]) -> list[float]:
    # Of the server and the trainer; who only moves models has no use for them.
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.graph, options, providers=["CPUExecutionProvider"])
    inputs = {model.manifest.input_name: np.array(rows, np.float32)}
    [medians] = session.run([model.manifest.outputs.median], inputs)
    return [float(median) for median in np.asarray(medians).reshape(len(rows))]


def _flat(model: LoadedModel) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, nested in value.items():
                walk(f"{prefix}.{name}" if prefix else name, nested)
        elif isinstance(value, list):
            for at, nested in enumerate(value):
                walk(f"{prefix}[{at}]", nested)
        else:
            found[prefix] = value

    told = MessageToDict(model.manifest, preserving_proto_field_name=True)
    walk("", {name: value for name, value in told.items() if name not in _APART})
    return found


def _columns(model: LoadedModel) -> dict[str, str]:
    found = {}
    for at, column in enumerate(model.manifest.inputs):
        told = MessageToDict(column, preserving_proto_field_name=True)
        name = told.pop("name", "")
        found[name] = f"{at}: {told}"
    return found
