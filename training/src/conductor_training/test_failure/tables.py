"""What the command tells of models and of histories, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ModelManifest
from conductor_training.tables import Row, model_row
from conductor_training.test_failure.evaluation import Evaluation
from conductor_training.test_failure.jobs import TrainedTests

_BLANK: Row = {"napfd": None, "best_rule": "", "best_rule_napfd": None, "calibration_error": None}


def trained_row(trained: TrainedTests) -> Row:
    """One model."""
    return model_row(trained, _BLANK, _figures)


def _figures(manifest: ModelManifest, chosen: CandidateMetrics, rules: Sequence[CandidateMetrics]) -> Row:
    best = max(rules, key=lambda candidate: candidate.napfd)
    return {
        "napfd": chosen.napfd,
        "best_rule": best.candidate,
        "best_rule_napfd": best.napfd,
        "calibration_error": manifest.probability_calibration.measured_error,
    }


def evaluation_rows(judged: Mapping[str, Evaluation]) -> list[Row]:
    """A row for each order, then one for each promise."""
    rows: list[Row] = []
    for tenant_id, evaluation in judged.items():
        figures = evaluation.figures
        for name, order in figures["orders"].items():
            rows.append({"tenant": tenant_id, "what": name, "apfd": order["apfd"], "apfdc": order["apfdc"]})
        for promise in figures["promises"]:
            rows.append(
                {
                    "tenant": tenant_id,
                    "what": f"α = {promise['alpha']:g}",
                    "missed": promise["missed"],
                    "time_saved": promise["time_saved"],
                }
            )
    keys = ("tenant", "what", "apfd", "apfdc", "missed", "time_saved")
    return [{key: row.get(key) for key in keys} for row in rows]
