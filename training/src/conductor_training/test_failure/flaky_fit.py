"""A tenant's model of flaky failures: how it is judged, calibrated and published."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ProbabilityCalibration
from conductor_training.bundles import Bundle
from conductor_training.test_failure import calibration
from conductor_training.test_failure.backtest import STRETCHES
from conductor_training.test_failure.describing import Exported, Origin, probability_bundle
from conductor_training.test_failure.fit import TooLittleHistory
from conductor_training.test_failure.flaky import (
    PROBABILITY,
    FlakyEstimator,
    JudgedFlaky,
    backtest_flaky,
    fit_flaky,
    is_flaky,
    tried_again,
)
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.metrics import log_loss, reliability

PREDICTOR = "test-flakiness"
ALGORITHM = "logistic-regression"
SHARE = "share-so-far"
"""The naive rule: what share of the failures was flaky."""


@dataclass(frozen=True)
class FittedFlaky:
    """An estimator, and what is known of it."""

    estimator: FlakyEstimator
    frame: TestFrame
    """The failures that it was fitted to."""
    judged: JudgedFlaky
    calibrated: bool
    """Whether beta calibration made the measured error smaller; else probabilities are as they were fitted."""
    measured_error: float
    log_losses: dict[str, float]
    """By candidate."""


def fit_flaky_tenant(frame: TestFrame) -> FittedFlaky:
    """Fit, judge, calibrate. Raises TooLittleHistory; also where the share so far says as much."""
    estimator, judged = fit_flaky(frame), backtest_flaky(frame, STRETCHES)
    flaky, raw, beta = judged.flaky, expit(judged.logits), judged.calibrated()
    if len(np.unique(flaky)) < 2:
        raise TooLittleHistory(f"failures that were tried again after there was enough to judge by: {len(flaky)}")
    errors = [reliability(said, flaky).error for said in (raw, beta)]
    calibrated = errors[1] < errors[0]
    losses = {SHARE: log_loss(judged.share, flaky), ALGORITHM: log_loss(beta if calibrated else raw, flaky)}
    if losses[ALGORITHM] >= losses[SHARE]:
        raise TooLittleHistory(
            f"history tells no more than the share of failures that were flaky so far: log loss"
            f" {losses[ALGORITHM]:.3f} and {losses[SHARE]:.3f}"
        )
    if calibrated:
        estimator = replace(estimator, calibration=calibration.fit_calibration(judged.logits, flaky))
    return FittedFlaky(estimator, frame.take(tried_again(frame)), judged, calibrated, min(errors), losses)


def make_flaky_bundle(fitted: FittedFlaky, tenant_id: str, origin: Origin = Origin()) -> Bundle:
    """Export and describe. Raises ExportDiffers."""
    content = fitted.estimator.export().SerializeToString(deterministic=True)
    flaky = fitted.judged.flaky
    return probability_bundle(
        PREDICTOR,
        tenant_id,
        ALGORITHM,
        Exported(content, PROBABILITY, fitted.frame, fitted.estimator.predict(fitted.frame.inputs)),
        origin,
        rate=float(is_flaky(fitted.frame).mean()),
        calibration=ProbabilityCalibration(
            method=calibration.METHOD if fitted.calibrated else calibration.NONE,
            row_count=len(flaky),
            base_rate=float(flaky.mean()),
            measured_error=fitted.measured_error,
        ),
        candidates=[
            CandidateMetrics(candidate=name, chosen=name == ALGORITHM, row_count=len(flaky), log_loss=loss)
            for name, loss in fitted.log_losses.items()
        ],
    )


def judge_flaky(frame: TestFrame, stretches: int) -> dict[str, float | int] | None:
    """What models fitted before each stretch say of its failures; None where there is too little to learn from."""
    judged = backtest_flaky(frame, stretches)
    flaky = judged.flaky
    if len(np.unique(flaky)) < 2:
        return None
    said, calibrated = expit(judged.logits), judged.calibrated()
    return {
        "failures": len(flaky),
        "flaky_share": float(flaky.mean()),
        "area_under_roc": float(roc_auc_score(flaky, said)),
        "expected_calibration_error": reliability(said, flaky).error,
        "expected_calibration_error_calibrated": reliability(calibrated, flaky).error,
        "log_loss": log_loss(said, flaky),
        "log_loss_calibrated": log_loss(calibrated, flaky),
        "log_loss_of_the_share_so_far": log_loss(judged.share, flaky),
    }
