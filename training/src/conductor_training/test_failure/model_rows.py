"""What the command tells of the models that it trained."""

from __future__ import annotations

from collections.abc import Sequence

from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ModelManifest
from conductor_training.tables import Row, model_row
from conductor_training.test_failure.jobs import TrainedTests

_BLANK: Row = {
    "napfd": None,
    "log_loss": None,
    "best_rule": "",
    "best_rule_napfd": None,
    "best_rule_log_loss": None,
    "calibration_error": None,
    "selection_runs": None,
}


def trained_row(trained: TrainedTests) -> Row:
    """One model: whom it is for, what it predicts, how it does beside the best rule."""
    row = model_row(trained, _BLANK, _figures)
    return {"tenant": row.pop("tenant"), "predictor": trained.predictor, **row}


def _figures(manifest: ModelManifest, chosen: CandidateMetrics, rules: Sequence[CandidateMetrics]) -> Row:
    best = max(rules, key=lambda candidate: candidate.napfd)
    return {
        "napfd": _napfd(chosen),
        "log_loss": _log_loss(chosen),
        "best_rule": best.candidate,
        "best_rule_napfd": _napfd(best),
        "best_rule_log_loss": _log_loss(best),
        "calibration_error": manifest.probability_calibration.measured_error,
        "selection_runs": len(manifest.selection_calibration.runs),
    }


def _napfd(candidate: CandidateMetrics) -> float | None:
    return candidate.napfd if candidate.HasField("napfd") else None


def _log_loss(candidate: CandidateMetrics) -> float | None:
    return candidate.log_loss if candidate.HasField("log_loss") else None
