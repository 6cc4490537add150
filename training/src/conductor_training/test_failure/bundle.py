"""What is published of a tenant's model: the graph, checked against the estimator, and its manifest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ProbabilityCalibration
from conductor_training import bundles
from conductor_training.bundles import Bundle
from conductor_training.test_failure import graph
from conductor_training.test_failure.arithmetic import InNumpy
from conductor_training.test_failure.calibration import METHOD, fit_calibration
from conductor_training.test_failure.describing import Exported, Origin, probability_bundle
from conductor_training.test_failure.estimator import CANDIDATES
from conductor_training.test_failure.fit import Fitted
from conductor_training.test_failure.metrics import log_loss
from conductor_training.test_failure.selection import order_figures
from conductor_training.test_failure.selection_calibration import selection_calibration
from conductor_training.test_failure.trees import INPUT_NAME

PREDICTOR = "test-failure"


def make_bundle(fitted: Fitted, tenant_id: str, origin: Origin = Origin()) -> Bundle:
    """Export and describe. Raises ExportDiffers."""
    content = graph.export_graph(fitted.estimator).SerializeToString(deterministic=True)
    unseen = fitted.backtest.without_first()
    bundle = probability_bundle(
        PREDICTOR,
        tenant_id,
        fitted.estimator.candidate.name,
        Exported(content, graph.PROBABILITY, fitted.frame, fitted.estimator.predict(fitted.frame.inputs)),
        origin,
        rate=float(fitted.frame.failed.mean()),
        calibration=ProbabilityCalibration(
            method=METHOD,
            row_count=len(unseen.stretch),
            base_rate=float(unseen.frame.failed.mean()),
            measured_error=fitted.measured_error,
        ),
        candidates=_candidates(fitted),
    )
    bundle.manifest.selection_calibration.CopyFrom(selection_calibration(fitted))
    return bundle


def run_graph(content: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities [rows] of a graph for ``inputs`` [rows, columns]."""
    return bundles.run(content, INPUT_NAME, [graph.PROBABILITY], inputs)[:, 0]


def _candidates(fitted: Fitted) -> list[CandidateMetrics]:
    unseen = fitted.backtest.without_first()
    figures = order_figures(unseen)
    metrics = []
    for candidate in CANDIDATES:
        logits = unseen.logits[candidate.name]
        probabilities = fit_calibration(logits, unseen.frame.failed).apply(InNumpy(unseen.frame.inputs), logits)
        entry = CandidateMetrics(
            candidate=candidate.name,
            chosen=candidate == fitted.estimator.candidate,
            row_count=len(logits),
            log_loss=log_loss(probabilities, unseen.frame.failed),
        )
        if len(figures.stretch):
            entry.napfd = float(figures.apfd[candidate.name].mean())
        metrics.append(entry)
    return metrics
