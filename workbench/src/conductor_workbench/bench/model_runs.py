"""ONNX Runtime alone: what of a request is the model."""

from __future__ import annotations

import numpy as np

from conductor_model_store import LoadedModel
from conductor_server.models.sessions import answer_kind, open_session, run_session
from conductor_workbench.bench.figures import Figures, repeat, spread

ROW_COUNTS = (1, 32, 256, 2000)
"""One build; about one build with the variants that explain it; a batch without explanations; many rows of tensors."""


def measure_model_runs(model: LoadedModel, seconds: float) -> Figures:
    """Microseconds of a run by number of rows, with the model's size."""
    manifest = model.manifest
    session = open_session(model.graph)
    golden = np.array([request.inputs for request in manifest.golden_requests], np.float32)
    found: Figures = {
        "algorithm": manifest.algorithm,
        "graph_bytes": len(model.graph),
        "manifest_bytes": manifest.ByteSize(),
        "columns": len(manifest.inputs),
    }
    outputs = answer_kind(manifest).output_names
    for count in ROW_COUNTS:
        rows = np.resize(golden, (count, golden.shape[1]))
        samples = repeat(
            seconds,
            lambda rows=rows: run_session(session, manifest.input_name, outputs, rows),  # type: ignore[misc]
        )
        found[f"rows_{count}"] = spread(samples, "us", 1e6)
    return found
