"""Fit, choose and calibrate: from a frame to an estimator and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from conductor_training.build_duration.backtest import Backtest, Progress, run_backtest
from conductor_training.build_duration.base import Array
from conductor_training.build_duration.calibration import conformal_factor, conformity_scores, measured_coverage
from conductor_training.build_duration.estimator import BLENDS, Estimator, apply_history_rule
from conductor_training.build_duration.heads import fit_heads
from conductor_training.build_duration.inputs import frame_inputs, trainable
from conductor_training.build_duration.selection import select
from conductor_training.frame import BuildFrame, epoch_seconds

LEAST_TENANT_ROWS = 100
"""A tenant with fewer rows is served by the global model."""
LEAST_GLOBAL_ROWS = 20
GLOBAL_CANDIDATE = BLENDS[0]
"""What was learned from others is trusted less."""
_TENANT_WEIGHT = 1000.0
_GLOBAL_TEST_SHARE = 0.3


class TooLittleHistory(ValueError):
    """There is not enough to train on; the message says how much there is."""


@dataclass(frozen=True)
class Fitted:
    """An estimator and how it was found."""

    estimator: Estimator
    frame: BuildFrame
    """The rows that it was fitted to."""
    backtest: Backtest
    predictions: Mapping[str, Array]
    """Backtest predictions in seconds by candidate, each of shape [backtest rows]."""
    measured_coverage: float
    """Share of backtest rows covered that the calibration had not seen; NaN where there were none."""
    calibration_rows: int


def fit_tenant(frame: BuildFrame, progress: Progress) -> Fitted:
    """A tenant's own model. Raises TooLittleHistory."""
    rows = trainable(frame)
    if len(rows.rows) < LEAST_TENANT_ROWS:
        raise TooLittleHistory(f"usable builds: {len(rows.rows)}; a model of its own takes {LEAST_TENANT_ROWS}")
    backtest = run_backtest(rows, progress)
    selection = select(backtest)
    scores = conformity_scores(backtest, selection.chosen)
    progress("fit")
    heads = fit_heads(frame_inputs(rows), _durations(rows))
    return Fitted(
        estimator=Estimator(heads, selection.chosen, conformal_factor(scores)),
        frame=rows,
        backtest=backtest,
        predictions=selection.predictions,
        measured_coverage=measured_coverage(scores),
        calibration_rows=len(scores),
    )


def fit_global(frame: BuildFrame, progress: Progress) -> Fitted:
    """The model of tenants with too little history, fitted to everybody's, each tenant weighing the same.

    It carries no conformal factor: what is calibrated on some tenants says little about another, and the pipeline's
    recent error scales the interval in any case. Raises TooLittleHistory.
    """
    rows = trainable(frame)
    if len(rows.rows) < LEAST_GLOBAL_ROWS:
        raise TooLittleHistory(
            f"usable builds of all tenants: {len(rows.rows)}; the global model takes {LEAST_GLOBAL_ROWS}"
        )
    progress("backtest")
    backtest = _split_in_time(rows)
    selection = select(backtest)
    scores = conformity_scores(backtest, GLOBAL_CANDIDATE)
    progress("fit")
    heads = fit_heads(frame_inputs(rows), _durations(rows), _equal_tenant_weights(rows))
    return Fitted(
        estimator=Estimator(heads, GLOBAL_CANDIDATE, 1.0),
        frame=rows,
        backtest=backtest,
        predictions=selection.predictions,
        measured_coverage=float((scores <= 1.0).mean()) if len(scores) else float("nan"),
        calibration_rows=0,
    )


def _split_in_time(frame: BuildFrame) -> Backtest:
    start = int(len(frame.rows) * (1 - _GLOBAL_TEST_SHARE))
    queued, completed = epoch_seconds(frame.rows.queued_time), epoch_seconds(frame.rows.completed_time)
    past = BuildFrame(frame.rows[completed < queued[start]].reset_index(drop=True), frame.until)
    late = BuildFrame(frame.rows.iloc[start:].reset_index(drop=True), frame.until)
    inputs = frame_inputs(late)
    heads = fit_heads(frame_inputs(past), _durations(past), _equal_tenant_weights(past))
    return Backtest(inputs, _durations(late), apply_history_rule(heads.predict(inputs), inputs))


def _durations(frame: BuildFrame) -> Array:
    return frame.rows.duration.to_numpy(dtype=np.float64)


def _equal_tenant_weights(frame: BuildFrame) -> Array:
    counts = frame.rows.tenant_id.map(frame.rows.tenant_id.value_counts())
    return _TENANT_WEIGHT / counts.to_numpy(dtype=np.float64)
