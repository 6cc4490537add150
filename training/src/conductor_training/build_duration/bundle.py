"""What is published: the graph, checked against the estimator, and its manifest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import (
    CandidateMetrics,
    IntervalCalibration,
    ModelManifest,
    QuantileOutputs,
    TrainingData,
)
from conductor_training import bundles
from conductor_training.build_duration import graph
from conductor_training.build_duration.base import Array
from conductor_training.build_duration.calibration import METHOD
from conductor_training.build_duration.columns import COLUMNS
from conductor_training.build_duration.estimator import CANDIDATES
from conductor_training.build_duration.fallback import fallback_statistics
from conductor_training.build_duration.fit import Fitted
from conductor_training.build_duration.heads import COVERAGE, SEED
from conductor_training.build_duration.inputs import frame_inputs
from conductor_training.build_duration.transform import INPUT_NAME
from conductor_training.bundles import Bundle, ExportDiffers
from conductor_training.frame import BuildFrame
from conductor_training.metrics import mean_absolute_error, mean_absolute_percentage_error

PREDICTOR = "build-duration"
LARGEST_RELATIVE_DIFFERENCE = 1e-4
"""Between graph (float32) and estimator (float64), of any row and output."""


def make_bundle(fitted: Fitted, whole: BuildFrame, tenant_id: str) -> Bundle:
    """Export and describe. ``whole`` is the frame before rows were left out. Raises ExportDiffers."""
    content = graph.export_graph(fitted.estimator).SerializeToString(deterministic=True)
    inputs = frame_inputs(fitted.frame)
    exported = run_graph(content, inputs)
    difference = max(
        _check_equal(fitted, inputs, exported),
        _check_equal(fitted, fitted.backtest.inputs, run_graph(content, fitted.backtest.inputs)),
    )
    manifest = ModelManifest(
        predictor=PREDICTOR,
        tenant_id=tenant_id,
        algorithm=fitted.estimator.candidate.name,
        graph=bundles.blob(content),
        inputs=bundles.input_columns(COLUMNS, inputs),
        input_name=INPUT_NAME,
        outputs=QuantileOutputs(lower=graph.LOWER, median=graph.MEDIAN, upper=graph.UPPER),
        calibration=IntervalCalibration(
            coverage=COVERAGE,
            method=METHOD,
            row_count=fitted.calibration_rows,
            measured_coverage=0.0 if math.isnan(fitted.measured_coverage) else fitted.measured_coverage,
        ),
        fallback=fallback_statistics(whole),
        training_data=_training_data(whole, fitted.frame),
        candidates=_candidates(fitted),
        golden_requests=bundles.golden_requests(inputs, exported),
        export_difference_seconds=difference,
    )
    return Bundle(manifest, content)


def run_graph(content: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower bound, median and upper bound in seconds [rows, 3] of a graph for ``inputs`` [rows, columns]."""
    return bundles.run(content, INPUT_NAME, [graph.LOWER, graph.MEDIAN, graph.UPPER], inputs)


def _check_equal(fitted: Fitted, inputs: NDArray[np.float32], exported: NDArray[np.float32]) -> float:
    """Largest difference in seconds between the graph's answers and the estimator's. Raises ExportDiffers."""
    expected: Array = fitted.estimator.predict(inputs)
    difference = np.abs(exported - expected)
    if not np.isfinite(exported).all() or (difference > LARGEST_RELATIVE_DIFFERENCE * expected).any():
        raise ExportDiffers(f"graph and estimator differ by up to {np.nanmax(difference):g} s")
    return float(difference.max(initial=0.0))


def _training_data(whole: BuildFrame, used: BuildFrame) -> TrainingData:
    data = TrainingData(
        row_count=len(used.rows),
        dataset_digest=whole.digest(),
        seed=SEED,
        lake_version=whole.lake_version,
        as_served=whole.as_served,
    )
    data.start_time.FromDatetime(whole.rows.queued_time.min().to_pydatetime())
    data.end_time.FromDatetime(whole.until)
    return data


def _candidates(fitted: Fitted) -> list[CandidateMetrics]:
    actual = fitted.backtest.durations
    metrics = []
    for candidate in CANDIDATES:
        predicted = fitted.predictions[candidate.name]
        chosen = candidate == fitted.estimator.candidate
        entry = CandidateMetrics(
            candidate=candidate.name,
            chosen=chosen,
            row_count=len(actual),
            mae_seconds=mean_absolute_error(predicted, actual),
            mape=mean_absolute_percentage_error(predicted, actual),
        )
        if chosen and not math.isnan(fitted.measured_coverage):
            entry.coverage = fitted.measured_coverage
        metrics.append(entry)
    return metrics
