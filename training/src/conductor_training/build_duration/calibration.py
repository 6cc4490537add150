"""Conformal calibration of the interval.

Normalised split conformal prediction (Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018)
on out-of-fold predictions, with the raw interval's half width as the scale, shrunk towards no correction: the scale
follows the pipeline's recent error online, so a factor far from one would mostly be chance.
"""

from __future__ import annotations

import numpy as np

from conductor_training.build_duration.backtest import Backtest
from conductor_training.build_duration.base import Array, base
from conductor_training.build_duration.estimator import Candidate, log_median, raw_interval
from conductor_training.build_duration.heads import COVERAGE

METHOD = "normalised-split-conformal"
PRIOR_ROWS = 300
"""Rows' worth of belief that the factor is one."""
HELD_BACK = 0.25
"""Last share of the backtest on which the coverage is measured, by a factor from the rest."""


def conformity_scores(backtest: Backtest, candidate: Candidate) -> Array:
    """How far each duration was from the interval's middle, in half widths; shape [rows]."""
    centre = log_median(backtest.inputs, backtest.values, candidate)
    interval = raw_interval(backtest.inputs, backtest.values, centre)
    actual = np.log(backtest.durations / base(backtest.inputs))
    return np.abs(actual - interval.middle) / interval.half_width


def conformal_factor(scores: Array) -> float:
    """What to stretch half widths by, so that the interval covers :data:`COVERAGE`; 1 without scores."""
    rows = len(scores)
    if rows == 0:
        return 1.0
    level = min(1.0, COVERAGE * (1 + 1 / rows))
    return float((np.quantile(scores, level) * rows + PRIOR_ROWS) / (rows + PRIOR_ROWS))


def measured_coverage(scores: Array) -> float:
    """Share covered on the last quarter by the factor of the rows before it; NaN without scores."""
    start = int(len(scores) * (1 - HELD_BACK))
    if start == len(scores):
        return float("nan")
    return float((scores[start:] <= conformal_factor(scores[:start])).mean())
