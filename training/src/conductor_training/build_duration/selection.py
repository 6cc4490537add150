"""Which candidate is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from conductor_training.build_duration.backtest import Backtest
from conductor_training.build_duration.base import Array, base
from conductor_training.build_duration.estimator import CANDIDATES, DEFAULT, Candidate, log_median

LEARNED_STANDARD_ERRORS = 1.0
RULE_STANDARD_ERRORS = 3.0
"""A fixed rule that was lucky in the past is what fails most under drift: it must be better beyond doubt."""


@dataclass(frozen=True)
class Selection:
    """The chosen candidate, and what each did: predictions in seconds, of shape [rows]."""

    chosen: Candidate
    predictions: Mapping[str, Array]


def select(backtest: Backtest) -> Selection:
    """The default blend, unless another candidate is better by more than chance, and still is at the end.

    Compared are mean absolute errors; chance is measured by the standard error of the paired difference. A learned
    candidate must be better in the backtest's last quarter, a fixed rule in each of the last two.
    """
    predictions = {
        candidate.name: base(backtest.inputs) * np.exp(log_median(backtest.inputs, backtest.values, candidate))
        for candidate in CANDIDATES
    }
    errors = {name: np.abs(values - backtest.durations) for name, values in predictions.items()}
    quarter = np.arange(len(backtest.durations)) * 4 // max(len(backtest.durations), 1)
    chosen, best_gain = DEFAULT, 0.0
    for candidate in CANDIDATES:
        gain = errors[DEFAULT.name] - errors[candidate.name]
        learned = candidate.weight > 0
        demanded = LEARNED_STANDARD_ERRORS if learned else RULE_STANDARD_ERRORS
        lasting = all(gain[quarter == late].mean() > 0 for late in ((3,) if learned else (2, 3)))
        if lasting and gain.mean() > max(best_gain, demanded * gain.std() / np.sqrt(len(gain))):
            chosen, best_gain = candidate, float(gain.mean())
    return Selection(chosen, predictions)
