"""Is a failure flaky? The probability that a test which fails in a run also passes in it, with the code as it was.

Logistic regression on what the feature store knows of the test before the run. It learns from tests that failed and had
several results in their run: of a failure that was not tried again nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from sklearn.linear_model import LogisticRegression

from conductor_training.onnx_graph import GraphBuilder
from conductor_training.test_failure import scores
from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.calibration import BetaCalibration, fit_calibration
from conductor_training.test_failure.columns import COLUMNS, INDEX
from conductor_training.test_failure.fit import TooLittleHistory
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.trees import INPUT_NAME

PROBABILITY = "flaky_probability"
LEAST_OF_EACH = 20
"""Failures that were flaky, and that were not, to learn from."""


def evidence(m: Any) -> list[Any]:
    """What speaks for or against flakiness, in numpy or in a graph (see ``scores``)."""

    def column(name: str) -> Any:
        return m.or_else(m.column(INDEX[name]), 0.0)

    def share(name: str) -> Any:
        """Of the test's failures; one failure more is taken for granted."""
        return m.op("Div", column(name), m.op("Add", column("test.failure_count"), 1.0))

    return [
        scores.logit(m, scores.history(m, 0.5)),
        scores.logit(m, scores.history_sort(m, 0.5)),
        column("test.flip_rate_20"),
        m.op("Min", share("test.flip_count"), 2.0),
        m.op("Min", share("test.rerun_flip_count"), 2.0),
    ]


@dataclass(frozen=True)
class FlakyEstimator:
    """The weights of the evidence, and the calibration."""

    weights: tuple[float, ...]
    intercept: float
    calibration: BetaCalibration = field(default_factory=BetaCalibration)

    def logit(self, m: Any) -> Any:
        """Before calibration, in numpy or in a graph."""
        total: Any = self.intercept
        for weight, value in zip(self.weights, evidence(m), strict=True):
            total = m.op("Add", m.op("Mul", value, weight), total)
        return total

    def apply(self, m: Any) -> Any:
        """Probabilities, in numpy or in a graph."""
        return self.calibration.apply(m, self.logit(m))

    def predict(self, inputs: NDArray[np.float32]) -> Array:
        """Probabilities, of shape [rows], for ``inputs`` [rows, len(COLUMNS)]."""
        probability: Array = self.apply(InNumpy(inputs))
        return probability

    def export(self) -> ModelProto:
        """The same as a graph."""
        graph = GraphBuilder("test-flakiness", INPUT_NAME, len(COLUMNS))
        graph.output(PROBABILITY, self.apply(graph))
        return graph.build()


def tried_again(frame: TestFrame) -> NDArray[np.bool_]:
    """Rows of failures that were tried again in their run."""
    return (frame.failed_count > 0) & (frame.result_count > 1)


def is_flaky(frame: TestFrame) -> Array:
    """1 where a result of the run passed as well. Of rows that were tried again."""
    return (frame.failed_count < frame.result_count).astype(np.float64)


def fit_flaky(frame: TestFrame) -> FlakyEstimator:
    """Fit to the failures of a frame that were tried again. Raises TooLittleHistory."""
    known = frame.take(tried_again(frame))
    flaky = is_flaky(known)
    if min(flaky.sum(), (1 - flaky).sum()) < LEAST_OF_EACH:
        raise TooLittleHistory(f"failures tried again: {len(flaky)}, of them flaky: {int(flaky.sum())}")
    model = LogisticRegression(C=1.0, max_iter=500).fit(np.column_stack(evidence(InNumpy(known.inputs))), flaky)
    return FlakyEstimator(tuple(map(float, model.coef_[0])), float(model.intercept_[0]))


@dataclass(frozen=True)
class JudgedFlaky:
    """What models said of failures that were tried again, each fitted before the failure's stretch. Shape [rows]."""

    frame: TestFrame
    stretch: NDArray[np.int64]
    logits: Array
    """Before calibration."""
    share: Array
    """Of the failures before the stretch that were flaky: the rule to be better than."""

    @property
    def flaky(self) -> Array:
        """1 where it was, else 0."""
        return is_flaky(self.frame)

    def calibrated(self) -> Array:
        """Probabilities, each by the calibration that the stretches before gave."""
        probabilities = np.empty(len(self.logits))
        for stretch in np.unique(self.stretch):
            now, past = self.stretch == stretch, self.stretch < stretch
            calibration = fit_calibration(self.logits[past], self.flaky[past])
            probabilities[now] = calibration.apply(InNumpy(self.frame.inputs[now]), self.logits[now])
        return probabilities


def backtest_flaky(frame: TestFrame, stretches: int) -> JudgedFlaky:
    """Go through a history, in stretches of equally many runs; without those before which there was too little to learn
    from."""
    runs = np.unique(frame.run)
    known = frame.take(tried_again(frame))
    logits, shares = np.full(len(known.run), np.nan), np.full(len(known.run), np.nan)
    numbers = np.zeros(len(known.run), np.int64)
    for number, (begin, end) in enumerate(pairwise(np.linspace(0, len(runs), stretches + 1).astype(int))):
        if begin == end:
            continue
        now = (known.run >= runs[begin]) & (known.run <= runs[end - 1])
        past = known.take((known.run < runs[begin]) & (known.completed < frame.started[frame.run == runs[begin]][0]))
        try:
            logits[now] = fit_flaky(past).logit(InNumpy(known.inputs[now]))
        except TooLittleHistory:
            continue
        numbers[now], shares[now] = number, is_flaky(past).mean()
    judged = ~np.isnan(logits)
    return JudgedFlaky(known.take(judged), numbers[judged], logits[judged], shares[judged])
