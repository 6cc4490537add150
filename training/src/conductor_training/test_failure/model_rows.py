"""What the command tells of the models that it trained."""

from __future__ import annotations

from conductor.model.v1.model_manifest_pb2 import CandidateMetrics
from conductor_training.test_failure.jobs import TrainedTests
from conductor_training.test_failure.tables import Row, trained_row


def model_row(trained: TrainedTests) -> Row:
    """One model: whom it is for, what it predicts, how it does beside the best rule."""
    row: Row = {"tenant": trained.tenant_id or "(global)", "predictor": trained.predictor}
    row |= {name: value for name, value in trained_row(trained).items() if name not in row}
    row |= {"log_loss": None, "best_rule_log_loss": None, "selection_runs": None}
    if trained.bundle is None:
        return row
    manifest = trained.bundle.manifest
    by_name = {candidate.candidate: candidate for candidate in manifest.candidates}
    for prefix, name in (("", manifest.algorithm), ("best_rule_", str(row["best_rule"]))):
        row |= {f"{prefix}napfd": _napfd(by_name[name]), f"{prefix}log_loss": _log_loss(by_name[name])}
    return row | {"selection_runs": len(manifest.selection_calibration.runs)}


def _napfd(candidate: CandidateMetrics) -> float | None:
    return candidate.napfd if candidate.HasField("napfd") else None


def _log_loss(candidate: CandidateMetrics) -> float | None:
    return candidate.log_loss if candidate.HasField("log_loss") else None
