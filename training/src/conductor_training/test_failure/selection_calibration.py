"""What promises about selected tests are calibrated on: what the published model would have said of past failures.

Out of sample: each run is judged by the published candidate as it was fitted before the run's stretch of the backtest.
What it says goes through the published calibration, so that it compares with what the server's graph says; calibration
is strictly rising, so it selects what the scores before it would. It is computed in float32 by the published graph's
own nodes, and lowered by a hair: a test that ties with one of these must not fall below it by a rounding, and ONNX
Runtime's sigmoid gives the last rows of a batch otherwise than the others, by up to 6e-8.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import CalibrationRun, SelectionCalibration
from conductor_training import bundles
from conductor_training.test_failure import graph
from conductor_training.test_failure.backtest import Backtest
from conductor_training.test_failure.fit import Fitted
from conductor_training.test_failure.trees import INPUT_NAME

MOST_RUNS = 400
MOST_PROBABILITIES = 200_000
"""Of all runs together, so that a manifest stays below 1 MB; the oldest runs are left out."""

MARGIN = np.float32(2**-22)
"""What they are lowered by: a few times the difference that a row's place in its batch makes."""


def selection_calibration(fitted: Fitted) -> SelectionCalibration:
    """The latest runs with a failure, in the order of their start."""
    judged = fitted.backtest.without_first()
    failed = judged.take(judged.frame.failed > 0)
    probabilities = np.maximum(judged_probabilities(fitted, failed) - MARGIN, np.float32(0))
    begins = np.flatnonzero(np.diff(failed.frame.run, prepend=-1))
    runs = np.split(np.arange(len(probabilities)), begins[1:])[-MOST_RUNS:] if len(begins) else []
    # Counted from the latest run on.
    sizes = np.cumsum([len(run) for run in reversed(runs)])
    kept = runs[len(runs) - int((sizes <= MOST_PROBABILITIES).sum()) :]
    return SelectionCalibration(runs=[_run(failed, run, probabilities[run]) for run in kept])


def judged_probabilities(fitted: Fitted, judged: Backtest) -> NDArray[np.float32]:
    """What the published model says of rows of its backtest, each as fitted before its stretch. Shape [rows]."""
    inputs = np.column_stack([judged.frame.inputs, judged.learned.astype(np.float32)])
    said = np.empty(len(inputs), np.float32)
    for stretch in np.unique(judged.stretch):
        which = judged.stretch == stretch
        estimator = replace(fitted.estimator, unknown=float(judged.unknown[which][0]))
        content = graph.export_judged(estimator).SerializeToString(deterministic=True)
        said[which] = bundles.run(content, INPUT_NAME, [graph.PROBABILITY], inputs[which])[:, 0]
    return said


def _run(judged: Backtest, rows: NDArray[np.int64], probabilities: NDArray[np.float32]) -> CalibrationRun:
    run = CalibrationRun(failed_probabilities=probabilities.tolist())
    run.start_time.FromMicroseconds(round(float(judged.frame.started[rows[0]]) * 1e6))
    run.completed_time.FromMicroseconds(round(float(judged.frame.completed[rows[0]]) * 1e6))
    return run
