"""A model's manifest as rows to print."""

from datetime import UTC
from itertools import zip_longest

from conductor_model_store.records import LoadedModel, Pointer
from conductor_model_store.scope import ModelScope
from conductor_model_store.store import WEIGHTED, ModelStore


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


def history_rows(store: ModelStore, scope: ModelScope, channel: str) -> list[dict[str, object]]:
    """The moves of a channel that count, newest first: when, who, from where to where, how and why."""
    history = store.history(scope.predictor, scope.tenant_id, channel)
    return [
        {
            "generation": pointer.generation,
            "time": pointer.published_time,
            "how": pointer.reason,
            "from": (before and before.version) or "(nothing)",
            "to": pointer.version or "(nothing)",
            **({"weight": pointer.weight} if channel in WEIGHTED else {}),
            "by": pointer.actor,
            "signed_by": store.moved_by(scope.pointer_key(channel, pointer.generation)),
            "why": pointer.detail,
        }
        for pointer, before in zip_longest(history, history[1:])
    ]
