"""The time-ordered backtest: what every candidate, fitted before each stretch of the history, says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from xgboost import XGBRegressor

from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.estimator import BASE, CANDIDATES, Estimator, score_logit, unknown_rate
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.trees import correction, fit_trees

STRETCHES = 12
LEAST_FAILURES = 20
"""With fewer failures in the past the trees correct nothing."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Backtest:
    """Logits of each candidate for every row, by what was fitted to the runs that had ended before."""

    frame: TestFrame
    logits: Mapping[str, Array]
    """By the candidate's name, each of shape [rows]."""
    stretch: NDArray[np.int64]
    """Number of the row's stretch; nothing was known before the first."""
    unknown: Array
    """Score of a test that never ran, and what the trees add to the base's logit, both by what was fitted before the
    row's stretch. Shape [rows]."""
    learned: Array

    def before(self, stretch: int) -> Backtest:
        """The stretches before one of them."""
        return self.take(self.stretch < stretch)

    def without_first(self) -> Backtest:
        """All but the stretch before which nothing was known."""
        return self.take(self.stretch > 0)

    def take(self, which: NDArray[np.bool_]) -> Backtest:
        """Some of the rows."""
        logits = {name: values[which] for name, values in self.logits.items()}
        return Backtest(self.frame.take(which), logits, self.stretch[which], self.unknown[which], self.learned[which])


def fit_correction(frame: TestFrame) -> tuple[float, XGBRegressor | None]:
    """What is learned of a frame: the score of tests that never ran, and the trees, if there is enough to learn
    from."""
    unknown = unknown_rate(frame.inputs, frame.failed)
    if frame.failed.sum() < LEAST_FAILURES:
        return unknown, None
    return unknown, fit_trees(frame.inputs, frame.failed, Estimator(BASE, unknown).logits(frame.inputs))


def run_backtest(frame: TestFrame, progress: Progress, stretches: int = STRETCHES) -> Backtest:
    """Backtest over a frame, in stretches of equally many runs."""
    runs = np.unique(frame.run)
    # Of the runs; then of the rows.
    ends = np.searchsorted(frame.run, [*runs[np.arange(stretches) * len(runs) // stretches], runs[-1] + 1])
    parts: dict[str, list[Array]] = {candidate.name: [] for candidate in CANDIDATES}
    unknowns, corrections = np.empty(len(frame.run)), np.empty(len(frame.run))
    for number, (start, end) in enumerate(pairwise(ends)):
        progress(f"backtest {number + 1}/{stretches}")
        if start == end:
            continue
        # A run that had not ended when the stretch began was not known then.
        past = frame.take((np.arange(len(frame.run)) < start) & (frame.completed < frame.started[start]))
        unknown, trees = fit_correction(past)
        inputs = frame.inputs[start:end]
        learned = correction(trees, inputs) if trees is not None else np.zeros(len(inputs))
        unknowns[start:end], corrections[start:end] = unknown, learned
        for candidate in CANDIDATES:
            parts[candidate.name].append(score_logit(InNumpy(inputs), candidate, unknown, learned))
    return Backtest(
        frame,
        {name: np.concatenate(values) for name, values in parts.items()},
        np.repeat(np.arange(stretches), np.diff(ends)),
        unknowns,
        corrections,
    )
