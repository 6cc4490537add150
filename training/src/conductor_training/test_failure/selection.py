"""Which candidate is published."""

from __future__ import annotations

import numpy as np

from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.backtest import Backtest
from conductor_training.test_failure.estimator import CANDIDATES, DEFAULT, Candidate
from conductor_training.test_failure.metrics import apfd
from conductor_training.test_failure.runs import Results

STANDARD_ERRORS = 1.0
LEAST_RUNS = 20
"""Runs with a failure and several tests, before anything but the default can win."""


def select(backtest: Backtest) -> Candidate:
    """The default, unless another candidate orders tests better by more than chance, and still does at the end.

    Compared are the APFD of runs with a failure; chance is measured by the standard error of the paired difference.
    """
    figures = order_figures(backtest)
    if len(figures[DEFAULT.name]) < LEAST_RUNS:
        return DEFAULT
    chosen, best_gain = DEFAULT, 0.0
    for candidate in CANDIDATES:
        gain = figures[candidate.name] - figures[DEFAULT.name]
        error = STANDARD_ERRORS * gain.std() / np.sqrt(len(gain))
        if gain[-len(gain) // 4 :].mean() > 0 and gain.mean() > max(best_gain, error):
            chosen, best_gain = candidate, float(gain.mean())
    return chosen


def order_figures(backtest: Backtest) -> dict[str, Array]:
    """By candidate: the APFD of each run in which something failed and there was something to order."""
    results = Results.of(backtest.frame)
    figures = {
        name: results.figures(logits, lambda scores, failed, _: apfd(scores, failed), least_results=2)
        for name, logits in backtest.logits.items()
    }
    return {name: values[~np.isnan(values)] for name, values in figures.items()}
