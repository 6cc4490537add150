"""Which candidate is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.backtest import Backtest
from conductor_training.test_failure.estimator import CANDIDATES, DEFAULT, Candidate
from conductor_training.test_failure.metrics import apfd
from conductor_training.test_failure.runs import Results

STANDARD_ERRORS = 1.0
LEAST_RUNS = 20
"""Runs with a failure and several tests, before anything but the default can win."""


@dataclass(frozen=True)
class OrderFigures:
    """APFD of each run in which something failed and there was something to order."""

    apfd: Mapping[str, Array]
    """By the candidate's name, each of shape [runs]."""
    stretch: NDArray[np.int64]
    """Number of each run's stretch in the backtest."""

    def between(self, first: int, end: int) -> OrderFigures:
        """Those of some stretches, without ``end``."""
        which = (self.stretch >= first) & (self.stretch < end)
        return OrderFigures({name: values[which] for name, values in self.apfd.items()}, self.stretch[which])


def order_figures(backtest: Backtest) -> OrderFigures:
    """What the candidates' orders came to."""
    results = Results.of(backtest.frame)
    figures = {
        name: results.figures(logits, lambda scores, failed, _: apfd(scores, failed), least_results=2)
        for name, logits in backtest.logits.items()
    }
    stretch = backtest.stretch[results.row[results.begins]]
    judged = ~np.isnan(figures[DEFAULT.name])
    return OrderFigures({name: values[judged] for name, values in figures.items()}, stretch[judged])


def select(figures: OrderFigures) -> Candidate:
    """The default, unless another candidate orders tests better by more than chance, and still does at the end.

    Compared are the APFD of runs with a failure; chance is measured by the standard error of the paired difference.
    """
    if len(figures.stretch) < LEAST_RUNS:
        return DEFAULT
    chosen, best_gain = DEFAULT, 0.0
    for candidate in CANDIDATES:
        gain = figures.apfd[candidate.name] - figures.apfd[DEFAULT.name]
        error = STANDARD_ERRORS * gain.std() / np.sqrt(len(gain))
        if gain[-len(gain) // 4 :].mean() > 0 and gain.mean() > max(best_gain, error):
            chosen, best_gain = candidate, float(gain.mean())
    return chosen
