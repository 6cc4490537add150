"""Beta calibration: from a score to a probability.

Kull, Silva Filho, Flach: "Beta calibration: a well-founded and easily implemented improvement on logistic calibration
for binary classifiers", AISTATS 2017. Three numbers, strictly rising: unlike isotonic steps it leaves the order as it
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

Array = NDArray[np.float64]
METHOD = "beta"
NONE = "none"
"""Told where the score is taken as it is, because that was measured to be better."""
LEAST_EVENTS = 10
"""With fewer rows of either kind the score is taken as it is."""


@dataclass(frozen=True)
class BetaCalibration:
    """Probability = sigmoid(a · ln s − b · ln(1 − s) + c) of a score s; a, b ≥ 0."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def apply(self, m: Any, logit: Any) -> Any:
        """Probabilities from logits of scores, in numpy or in a graph (see ``scores``)."""
        # ln s = −softplus(−logit) and −ln(1 − s) = softplus(logit), without the loss of digits near 0 and 1.
        low = m.op("Mul", m.op("Softplus", m.op("Neg", logit)), -self.a)
        high = m.op("Mul", m.op("Softplus", logit), self.b)
        return m.op("Sigmoid", m.op("Add", m.op("Add", low, high), self.c))


def fit_calibration(logits: Array, happened: Array, weights: Array | None = None) -> BetaCalibration:
    """From scores of rows that the model had not seen, and whether it happened."""
    if min(happened.sum(), (1 - happened).sum()) < LEAST_EVENTS:
        return BetaCalibration()
    parts = np.column_stack([-np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits)])
    kept = [0, 1]
    # A negative factor would turn the order round: without it, as the authors do.
    while kept:
        model = LogisticRegression(C=1e6, solver="newton-cholesky").fit(parts[:, kept], happened, weights)
        factors = dict(zip(kept, model.coef_[0], strict=True))
        if min(factors.values()) >= 0:
            return BetaCalibration(float(factors.get(0, 0.0)), float(factors.get(1, 0.0)), float(model.intercept_[0]))
        kept.remove(min(kept, key=factors.__getitem__))
    return BetaCalibration()
