"""Fit, choose and calibrate: from a frame to an estimator and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conductor_training.test_failure.backtest import Backtest, Progress, fit_correction, run_backtest
from conductor_training.test_failure.calibration import fit_calibration
from conductor_training.test_failure.estimator import Estimator
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.metrics import reliability
from conductor_training.test_failure.prequential import judge
from conductor_training.test_failure.selection import order_figures, select

LEAST_RUNS = 30
LEAST_FAILURES = 10


class TooLittleHistory(ValueError):
    """There is not enough to train on; the message says how much there is."""


@dataclass(frozen=True)
class Fitted:
    """An estimator and how it was found."""

    estimator: Estimator
    frame: TestFrame
    """The rows that it was fitted to."""
    backtest: Backtest
    measured_error: float
    """Expected calibration error of the backtest's rows, each by a calibration that had not seen it."""


def require_history(frame: TestFrame) -> None:
    """Raises TooLittleHistory."""
    runs, failures = len(np.unique(frame.run)), int(frame.failed.sum())
    if runs < LEAST_RUNS or failures < LEAST_FAILURES:
        raise TooLittleHistory(
            f"runs: {runs}, failures: {failures}; a model of its own takes {LEAST_RUNS} and {LEAST_FAILURES}"
        )


def fit_tenant(frame: TestFrame, progress: Progress) -> Fitted:
    """A tenant's own model. Raises TooLittleHistory."""
    require_history(frame)
    backtest = run_backtest(frame, progress)
    unseen = backtest.without_first()
    chosen = select(order_figures(unseen))
    judged = judge(backtest)
    late = backtest.stretch > 1
    progress("fit")
    unknown, trees = fit_correction(frame)
    calibration = fit_calibration(unseen.logits[chosen.name], unseen.frame.failed)
    return Fitted(
        estimator=Estimator(chosen, unknown, trees, calibration),
        frame=frame,
        backtest=backtest,
        measured_error=reliability(judged.probabilities[late], frame.failed[late]).error,
    )
