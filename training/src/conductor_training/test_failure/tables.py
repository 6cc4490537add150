"""What the command tells of models and of histories, as rows."""

from __future__ import annotations

from collections.abc import Mapping

from conductor_training.test_failure.evaluation import Evaluation
from conductor_training.test_failure.jobs import TrainedTests

Row = dict[str, object]


def trained_row(trained: TrainedTests) -> Row:
    """One model."""
    row: Row = {"tenant": trained.tenant_id, "version": trained.version, "model": "", "rows": None, "napfd": None}
    row |= {"best_rule": "", "best_rule_napfd": None, "calibration_error": None, "skipped": trained.skipped}
    if trained.bundle is None:
        return row
    manifest = trained.bundle.manifest
    chosen = next(candidate for candidate in manifest.candidates if candidate.chosen)
    rules = [candidate for candidate in manifest.candidates if not candidate.candidate.startswith("xgboost")]
    best = max(rules, key=lambda candidate: candidate.napfd)
    return row | {
        "model": manifest.algorithm,
        "rows": manifest.training_data.row_count,
        "napfd": chosen.napfd,
        "best_rule": best.candidate,
        "best_rule_napfd": best.napfd,
        "calibration_error": manifest.probability_calibration.measured_error,
        "skipped": "",
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
