"""How good an order of tests, a probability or a selection was.

An order comes from scores: greater ones run first. Where scores tie, the figure is the expectation over all orders of
the tied tests, so that neither names nor the order in a file decide.

APFD: Rothermel et al., "Prioritizing Test Cases For Regression Testing", TSE 2001. APFDc: Elbaum et al., "Incorporating
Varying Test Costs and Fault Severities into Test Case Prioritization", ICSE 2001. NAPFD: Qu et al., "Combinatorial
Interaction Regression Testing", ICSM 2007. Each failed result counts as a fault of its own, as in the studies of CI.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon
from sklearn.metrics import precision_recall_curve

Array = NDArray[np.float64]


def apfd(scores: Array, failed: Array) -> float:
    """Average percentage of faults detected. ``failed`` is 1 or 0; NaN where nothing failed. All of shape [results]."""
    count, faults = len(scores), float(failed.sum())
    if faults == 0:
        return float("nan")
    return 1 - float((rankdata(-scores) * failed).sum()) / (count * faults) + 1 / (2 * count)


def best_apfd(failed: Array) -> float:
    """The greatest that any order could have."""
    return apfd(failed, failed)


def apfdc(scores: Array, failed: Array, costs: Array) -> float:
    """APFD by cost instead of count: how much of the cost was left when a fault was found."""
    faults, total = float(failed.sum()), float(costs.sum())
    if faults == 0 or total == 0:
        return float("nan")
    _, group = np.unique(-scores, return_inverse=True)
    own = np.bincount(group, costs)
    # Of the tests that tie with it, half the cost comes before it, half after, on average.
    left = total - np.cumsum(own) + own / 2
    return float((left[group] * failed).sum()) / (total * faults)


def napfd(scores: Array, failed: Array, costs: Array, budget: float, seed: int = 0, orders: int = 20) -> float:
    """Normalised APFD of the tests that fit into the first ``budget`` (a share of all cost): what is not reached is not
    found.

    Tied tests are ordered at random ``orders`` times, by the seed.
    """
    count, faults = len(scores), float(failed.sum())
    if faults == 0:
        return float("nan")
    chance = np.random.default_rng(seed)
    values = []
    for _ in range(orders if len(np.unique(scores)) < count else 1):
        order = np.lexsort((chance.random(count), -scores))
        # Rounding must not shut out the last test of a whole budget.
        reached = np.cumsum(costs[order]) <= budget * costs.sum() * (1 + 1e-9)
        found = failed[order] * reached
        share = found.sum() / faults
        values.append(share - ((np.arange(count) + 1) * found).sum() / (count * faults) + share / (2 * count))
    return float(np.mean(values))


def gain(scores: Array, failed: Array, costs: Array, grid: Array) -> Array:
    """Share of the faults found once each share of ``grid`` of the cost is spent. Shape [grid]."""
    order = np.argsort(-scores, kind="stable")
    spent = np.concatenate([[0.0], np.cumsum(costs[order]) / costs.sum()])
    found = np.concatenate([[0.0], np.cumsum(failed[order]) / failed.sum()])
    share: Array = np.interp(grid, spent, found)
    return share


@dataclass(frozen=True)
class Reliability:
    """Bins of equal size in the order of the probability, each of shape [bins]."""

    probability: Array
    share: Array
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean difference, weighed by the bins' sizes."""
        return float(np.average(np.abs(self.probability - self.share), weights=self.count))


def reliability(probabilities: Array, happened: Array, bins: int = 10) -> Reliability:
    """How often it happened, beside how often it was said to."""
    parts = [part for part in np.array_split(np.argsort(probabilities, kind="stable"), bins) if len(part)]
    return Reliability(
        np.array([probabilities[part].mean() for part in parts]),
        np.array([happened[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def log_loss(probabilities: Array, happened: Array) -> float:
    """Mean negative log-likelihood in nats."""
    kept = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return float(-(happened * np.log(kept) + (1 - happened) * np.log1p(-kept)).mean())


def precision_at_recall(probabilities: Array, failed: Array, recall: float) -> float:
    """The greatest precision of any threshold that finds at least this share; NaN where nothing failed."""
    if not failed.any():
        return float("nan")
    precisions, recalls, _ = precision_recall_curve(failed, probabilities)
    return float(precisions[recalls >= recall].max())


@dataclass(frozen=True)
class Paired:
    """One figure against another, cycle by cycle."""

    mean_difference: float
    wins: int
    losses: int
    p_value: float
    """Of Wilcoxon's signed-rank test, two-sided; 1 where no pair differs."""


def paired(ours: Array, theirs: Array) -> Paired:
    """Whether ``ours`` are greater than ``theirs`` by more than chance."""
    difference = ours - theirs
    # Equal but for rounding is equal.
    difference = np.where(np.abs(difference) < 1e-12, 0.0, difference)
    p_value = float(wilcoxon(difference).pvalue) if difference.any() else 1.0
    return Paired(float(difference.mean()), int((difference > 0).sum()), int((difference < 0).sum()), p_value)
