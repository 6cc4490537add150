"""The whole procedure judged from the past only: before each stretch of the history a candidate is chosen and
calibrated by what the stretches before it showed, then it predicts the stretch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_model_store.promise import PastCycle, Replay
from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.backtest import Backtest
from conductor_training.test_failure.calibration import BetaCalibration, fit_calibration
from conductor_training.test_failure.estimator import DEFAULT, Candidate
from conductor_training.test_failure.runs import Results
from conductor_training.test_failure.selection import OrderFigures, order_figures, select


@dataclass(frozen=True)
class Judged:
    """What would have been served."""

    logits: Array
    """Of the champion of the time, before calibration. Shape [rows]."""
    probabilities: Array
    champions: tuple[str, ...]
    """By stretch."""


def judge(backtest: Backtest) -> Judged:
    """Every row of a backtest, as it would have been answered."""
    logits, probabilities = np.empty(len(backtest.stretch)), np.empty(len(backtest.stretch))
    figures = order_figures(backtest)
    champions = []
    for stretch in range(int(backtest.stretch.max()) + 1):
        champion, calibration = _before(backtest, figures, stretch)
        which = backtest.stretch == stretch
        logits[which] = backtest.logits[champion.name][which]
        probabilities[which] = calibration.apply(InNumpy(backtest.frame.inputs[which]), logits[which])
        champions.append(champion.name)
    return Judged(logits, probabilities, tuple(champions))


def _before(backtest: Backtest, figures: OrderFigures, stretch: int) -> tuple[Candidate, BetaCalibration]:
    if stretch < 2:
        # Nothing was predicted by anything fitted yet.
        return DEFAULT, BetaCalibration()
    past = backtest.before(stretch).without_first()
    champion = select(figures.between(1, stretch))
    return champion, fit_calibration(past.logits[champion.name], past.frame.failed)


@dataclass(frozen=True)
class Selected:
    """What a promise came to, run by run; each of shape [runs]."""

    missed: Array
    """Share of the run's failures that were left out; NaN where nothing failed."""
    kept_cost: Array
    """Share of the run's time that was spent."""
    cost: Array
    """Its time."""
    calibrated: NDArray[np.bool_]
    """Whether a threshold was found; else everything ran."""


def replay_selection(backtest: Backtest, scores: Array, alpha: float, window: int) -> Selected:
    """Select the tests of each run by what the latest ``window`` runs with a failure showed, which had ended before
    it."""
    frame, results = backtest.frame, Results.of(backtest.frame)
    parts = results.parts()
    missed, kept, cost = (np.full(len(parts), np.nan) for _ in range(3))
    found = np.zeros(len(parts), bool)
    replay = Replay(alpha, window)
    for place, part in enumerate(parts):
        row = results.row[part]
        own, failed, costs = scores[row], results.failed[part], results.cost[part]
        started, completed = frame.started[row[0]], frame.completed[row[0]]
        threshold = replay.threshold(started)
        cost[place] = costs.sum()
        kept[place] = costs[own >= threshold.score].sum() / cost[place] if cost[place] else 1.0
        found[place] = not threshold.selects_everything
        if failed.any():
            missed[place] = replay.add(PastCycle(started, completed, own[failed > 0]), threshold)
    return Selected(missed, kept, cost, found)
