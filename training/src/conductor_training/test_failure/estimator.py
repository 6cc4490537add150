"""The whole estimator: a candidate's score, made a probability. One definition for numpy and for the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xgboost import XGBRegressor

from conductor_training.test_failure import scores
from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.calibration import BetaCalibration
from conductor_training.test_failure.columns import INDEX, LATEST
from conductor_training.test_failure.scores import Rule
from conductor_training.test_failure.trees import correction

LARGEST_CORRECTION = 2.0
"""What is learned moves a logit this far at most: trees may not run away when the world changes."""


@dataclass(frozen=True)
class Candidate:
    """A way to a score: a naive rule, or the base corrected by a share of the trees."""

    name: str
    rule: Rule
    weight: float = 0.0


RULES = (
    Candidate("history-sort", scores.history_sort),
    Candidate("recent-failures", scores.recent_failures),
    Candidate("failure-rate", scores.failure_rate),
    Candidate("decayed-rate", scores.decayed_rate),
)
"""The naive rules."""
BASE = Candidate("history", scores.history)
BLENDS = tuple(Candidate(f"xgboost-blend-{weight:g}", scores.history, weight) for weight in (0.5, 1.0))
CANDIDATES = (*RULES, BASE, *BLENDS)
DEFAULT = BASE
"""What is published unless another one is clearly better."""


def unknown_rate(inputs: NDArray[np.float32], failed: Array) -> float:
    """How often tests failed at their first run, with one of either kind added."""
    first = failed[np.isnan(inputs[:, INDEX[LATEST.name]])]
    return float((first.sum() + 1) / (len(first) + 2))


def score_logit(m: Any, candidate: Candidate, unknown: float, learned: Any) -> Any:
    """The candidate's logit in numpy or in a graph; ``learned`` is what the trees add, for a blend."""
    logit = scores.logit(m, candidate.rule(m, unknown))
    if candidate.weight == 0:
        return logit
    bounded = m.clip(learned, -LARGEST_CORRECTION, LARGEST_CORRECTION)
    return m.op("Add", logit, m.op("Mul", bounded, candidate.weight))


@dataclass(frozen=True)
class Estimator:
    """The chosen candidate, its trees where it has some, and the calibration."""

    candidate: Candidate
    unknown: float
    """Score of a test that never ran."""
    trees: XGBRegressor | None = None
    calibration: BetaCalibration = field(default_factory=BetaCalibration)

    def logits(self, inputs: NDArray[np.float32]) -> Array:
        """Before calibration, of shape [rows], for ``inputs`` [rows, len(COLUMNS)]."""
        learned = correction(self.trees, inputs) if self.trees is not None else np.zeros(len(inputs))
        logit: Array = score_logit(InNumpy(inputs), self.candidate, self.unknown, learned)
        return logit

    def predict(self, inputs: NDArray[np.float32]) -> Array:
        """Probabilities of failure, of shape [rows]."""
        probability: Array = self.calibration.apply(InNumpy(inputs), self.logits(inputs))
        return probability
