"""What the command tells of histories, as rows."""

from __future__ import annotations

from collections.abc import Mapping

from conductor_training.tables import Row
from conductor_training.test_failure.evaluation import Evaluation


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
