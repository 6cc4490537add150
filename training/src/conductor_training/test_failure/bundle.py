"""What is published: the graph, checked against the estimator, and its manifest."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import (
    CandidateMetrics,
    FallbackStatistics,
    ModelManifest,
    ProbabilityCalibration,
    ProbabilityOutput,
    RateStatistics,
    TrainingData,
)
from conductor_training import bundles
from conductor_training.bundles import Bundle, ExportDiffers
from conductor_training.test_failure import graph
from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.calibration import METHOD, fit_calibration
from conductor_training.test_failure.columns import COLUMNS
from conductor_training.test_failure.estimator import CANDIDATES
from conductor_training.test_failure.fit import Fitted
from conductor_training.test_failure.metrics import log_loss
from conductor_training.test_failure.selection import order_figures
from conductor_training.test_failure.selection_calibration import selection_calibration
from conductor_training.test_failure.trees import INPUT_NAME, SEED

PREDICTOR = "test-failure"
LARGEST_DIFFERENCE = 1e-4
"""Between graph (float32) and estimator (float64), of any row's probability."""


def make_bundle(fitted: Fitted, tenant_id: str, until: datetime | None = None) -> Bundle:
    """Export and describe. ``until`` is when what was known ended; else the last run's end. Raises ExportDiffers."""
    content = graph.export_graph(fitted.estimator).SerializeToString(deterministic=True)
    inputs = fitted.frame.inputs
    exported = run_graph(content, inputs)
    manifest = ModelManifest(
        predictor=PREDICTOR,
        tenant_id=tenant_id,
        algorithm=fitted.estimator.candidate.name,
        graph=bundles.blob(content),
        inputs=bundles.input_columns(COLUMNS, inputs),
        input_name=INPUT_NAME,
        probability=ProbabilityOutput(probability=graph.PROBABILITY),
        probability_calibration=ProbabilityCalibration(
            method=METHOD,
            row_count=len(fitted.backtest.without_first().stretch),
            base_rate=float(fitted.backtest.without_first().frame.failed.mean()),
            measured_error=fitted.measured_error,
        ),
        fallback=FallbackStatistics(
            overall_rate=RateStatistics(rate=float(fitted.frame.failed.mean()), row_count=len(inputs))
        ),
        training_data=_training_data(fitted, until),
        candidates=_candidates(fitted),
        golden_requests=bundles.golden_requests(inputs, exported[:, None]),
        export_difference_probability=_check_equal(fitted.estimator.predict(inputs), exported),
        selection_calibration=selection_calibration(fitted),
    )
    return Bundle(manifest, content)


def run_graph(content: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities [rows] of a graph for ``inputs`` [rows, columns]."""
    return bundles.run(content, INPUT_NAME, [graph.PROBABILITY], inputs)[:, 0]


def _check_equal(expected: Array, exported: NDArray[np.float32]) -> float:
    difference = np.abs(exported - expected)
    if not np.isfinite(exported).all() or (difference > LARGEST_DIFFERENCE).any():
        raise ExportDiffers(f"graph and estimator differ by up to {np.nanmax(difference):g}")
    return float(difference.max(initial=0.0))


def _training_data(fitted: Fitted, until: datetime | None) -> TrainingData:
    frame = fitted.frame
    data = TrainingData(row_count=len(frame.run), dataset_digest=frame.digest(), seed=SEED)
    data.start_time.FromDatetime(datetime.fromtimestamp(float(frame.started.min()), UTC))
    data.end_time.FromDatetime(until or datetime.fromtimestamp(float(frame.completed.max()), UTC))
    return data


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
