"""A model's manifest as rows to print."""

from datetime import UTC

from conductor_model_store.records import LoadedModel, Pointer


def describe(model: LoadedModel, pointer: Pointer | None, signature: str) -> dict[str, object]:
    """What a person asks about a model.

    ``pointer``: where the channel of its scope points. ``signature``: who signed it.
    """
    manifest, data, calibration = model.manifest, model.manifest.training_data, model.manifest.calibration
    return {
        "model": model.scope.resource_name,
        "version": model.version,
        "in_use": bool(pointer and pointer.version == model.version),
        "signed_by": signature,
        "algorithm": manifest.algorithm,
        "manifest_digest": model.manifest_digest,
        "graph_digest": manifest.graph.digest,
        "graph_bytes": manifest.graph.size_bytes,
        "columns": len(manifest.inputs),
        "coverage": calibration.coverage,
        "measured_coverage": calibration.measured_coverage,
        "calibration": calibration.method,
        "training_rows": data.row_count,
        "training_start": data.start_time.ToDatetime(tzinfo=UTC) if data.HasField("start_time") else None,
        "training_end": data.end_time.ToDatetime(tzinfo=UTC) if data.HasField("end_time") else None,
        "dataset_digest": data.dataset_digest,
        "seed": data.seed,
        "golden_requests": len(manifest.golden_requests),
        "export_difference_seconds": manifest.export_difference_seconds,
    }


def candidate_rows(model: LoadedModel) -> list[dict[str, object]]:
    """How the candidates did on the backtest, best mean absolute error first."""
    return [
        {
            "candidate": candidate.candidate,
            "chosen": candidate.chosen,
            "rows": candidate.row_count,
            "mae_seconds": candidate.mae_seconds,
            "mape": candidate.mape,
            "coverage": candidate.coverage if candidate.HasField("coverage") else None,
        }
        for candidate in sorted(model.manifest.candidates, key=lambda candidate: candidate.mae_seconds)
    ]
