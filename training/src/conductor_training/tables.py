"""What the commands tell of a model, whatever it predicts, as a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command's help does not wait for the libraries of training
    from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ModelManifest
    from conductor_training.jobs import Trained
    from conductor_training.test_failure.jobs import TrainedTests

Row = dict[str, object]
Figures = Callable[["ModelManifest", "CandidateMetrics", Sequence["CandidateMetrics"]], Row]
"""What is told of models of a kind: of the manifest, the candidate that was chosen, and the naive rules beside it."""


def model_row(trained: Trained | TrainedTests, blank: Row, figures: Figures) -> Row:
    """One model. Where there is none, ``blank`` stands for its figures, and the row says why."""
    row: Row = {"tenant": trained.tenant_id or "(global)", "version": trained.version, "model": "", "rows": None}
    row |= blank
    if trained.bundle is not None:
        manifest = trained.bundle.manifest
        chosen = next(candidate for candidate in manifest.candidates if candidate.chosen)
        rules = [candidate for candidate in manifest.candidates if not candidate.candidate.startswith("xgboost")]
        row |= {"model": manifest.algorithm, "rows": manifest.training_data.row_count}
        row |= figures(manifest, chosen, rules)
    return row | {"skipped": trained.skipped}
