"""Selecting tests with a promise: of the failures of a cycle, at most the share α is missed, in expectation.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster, 2022): for cycles that are exchangeable, the greatest
threshold t whose loss on n past cycles satisfies (n · mean loss(t) + 1) / (n + 1) ≤ α misses at most α of the next
cycle's failures in expectation. The loss of a cycle is the share of its failed tests whose score is below t: it is
between 0 and 1, and never falls as t rises. Cycles without a failure tell nothing about missing one and are not
counted: the promise is of cycles in which something fails, which is more than one of all cycles.

With fewer than 1/α − 1 cycles no threshold satisfies that: everything is selected, and the answer says so.

Histories drift, so cycles are not quite exchangeable. Where the rate that was realised is above what was promised, the
level is lowered by what was lost too much (as in adaptive conformal inference: Gibbs and Candès, 2021), and is never
raised above α.

Pure: knows no files, no clock and no model. Training judges promises by :class:`Replay`, the server makes them by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP = 0.2
"""Share of an excess by which the level is lowered: what was missed too much is made good within tens of runs."""
EVERYTHING = -math.inf


class Reason(Enum):
    """Why the threshold is what it is."""

    CALIBRATED = "calibrated"
    TOO_FEW_CYCLES = "too few cycles: everything is selected"
    PROMISE_WAS_BROKEN = "more was missed lately than promised: everything is selected"


@dataclass(frozen=True)
class Threshold:
    """Tests with this score or a greater one are selected."""

    score: float
    reason: Reason
    cycle_count: int
    """Cycles with a failure that it was calibrated on."""
    level: float
    """α, or less where more was missed lately than promised."""

    @property
    def selects_everything(self) -> bool:
        """Whether no test is left out."""
        return self.score == EVERYTHING


def least_cycles(alpha: float) -> int:
    """With fewer cycles than this everything is selected."""
    # 1/0.1 must not become 10.000000000000002.
    return math.ceil(round(1 / alpha - 1, 9))


def calibrate(failed_scores: Sequence[Array], alpha: float, realised: Sequence[float] = ()) -> Threshold:
    """The threshold for the next cycle.

    Args:
        failed_scores: the scores of the tests that failed, of each past cycle with a failure.
        alpha: the share of a cycle's failures that may be missed, between 0 and 1.
        realised: what was missed in earlier cycles by thresholds of this promise, in their order.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: it must be between 0 and 1")
    count = len(failed_scores)
    if count < least_cycles(alpha):
        return Threshold(EVERYTHING, Reason.TOO_FEW_CYCLES, count, alpha)
    level = adapted_level(realised, alpha)
    # The mean loss may be this; it is 0 at EVERYTHING.
    allowed = (level * (count + 1) - 1) / count
    if allowed < -1e-12:
        return Threshold(EVERYTHING, Reason.PROMISE_WAS_BROKEN, count, level)
    scores = np.concatenate(list(failed_scores))
    sizes = np.fromiter(map(len, failed_scores), np.int64, count)
    losses = np.repeat(1 / sizes, sizes) / count
    order = np.argsort(scores, kind="stable")
    values, first = np.unique(scores[order], return_index=True)
    # At a threshold equal to a score, what is lower is missed.
    missed = np.concatenate([[0.0], np.cumsum(losses[order])])[first]
    greatest = int(np.flatnonzero(missed <= allowed + 1e-12).max())
    return Threshold(float(values[greatest]), Reason.CALIBRATED, count, level)


def adapted_level(realised: Sequence[float], alpha: float) -> float:
    """α, lowered by a share of what was missed beyond it and not made good since; from 0 to α."""
    level = alpha
    for missed in realised:
        level = min(level + STEP * (alpha - missed), alpha)
    return max(level, 0.0)


def missed_share(failed_scores: Array, threshold: Threshold) -> float:
    """The share of a cycle's failures that the threshold leaves out; 0 where nothing failed."""
    return float((failed_scores < threshold.score).mean()) if len(failed_scores) else 0.0


@dataclass(frozen=True)
class PastCycle:
    """A past cycle with a failure."""

    started: float
    """Epoch seconds, as ``completed``."""
    completed: float
    failed_scores: Array
    """Of the tests that failed, the scores that they had been given before."""


@dataclass(frozen=True)
class Kept:
    """A past cycle, and the share of its failures that the promise missed then."""

    cycle: PastCycle
    missed: float


class Replay:
    """A promise, kept cycle by cycle: each is selected by what the latest ones had shown that ended before it began."""

    def __init__(self, alpha: float, window: int, cycles: Iterable[PastCycle] = ()) -> None:
        """Calibrate on ``window`` cycles with a failure; ``cycles`` are those so far, in the order of their start."""
        self._alpha, self._window = alpha, window
        self._kept: list[Kept] = []
        for cycle in cycles:
            self.add(cycle, self.threshold(cycle.started))

    def known(self, moment: float) -> list[Kept]:
        """What is calibrated on at a moment."""
        return [kept for kept in self._kept if kept.cycle.completed < moment][-self._window :]

    def threshold(self, moment: float) -> Threshold:
        """The threshold for a cycle that begins then."""
        known = self.known(moment)
        return calibrate([kept.cycle.failed_scores for kept in known], self._alpha, [kept.missed for kept in known])

    def add(self, cycle: PastCycle, threshold: Threshold) -> float:
        """Note a cycle that was selected by a threshold; returns the share of its failures that was missed."""
        missed = missed_share(cycle.failed_scores, threshold)
        self._kept.append(Kept(cycle, missed))
        return missed
