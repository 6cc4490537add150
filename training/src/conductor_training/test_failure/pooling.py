"""The global model: for tenants without enough history of their own, from those that have it, each weighing the same.

What is learned of some tenants is judged on the others: each tenant is predicted by what the rest gave (in at most
:data:`FOLDS` parts). Trees see only columns that mean the same everywhere, and are published only if they order other
tenants' tests better than the base; so is a calibration only if it brings other tenants' probabilities nearer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from xgboost import XGBRegressor

from conductor_training.test_failure.arithmetic import Array, InNumpy
from conductor_training.test_failure.backtest import Backtest, Progress
from conductor_training.test_failure.calibration import BetaCalibration, fit_calibration
from conductor_training.test_failure.columns import TRANSFERABLE
from conductor_training.test_failure.estimator import (
    BASE,
    BLENDS,
    CANDIDATES,
    Candidate,
    Estimator,
    score_logit,
    unknown_rate,
)
from conductor_training.test_failure.fit import TooLittleHistory, require_history
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.metrics import log_loss
from conductor_training.test_failure.selection import LEAST_RUNS, order_figures
from conductor_training.test_failure.trees import correction, fit_trees

FOLDS = 5
Frames = Mapping[str, TestFrame]
"""By tenant."""


@dataclass(frozen=True)
class FittedGlobal:
    """An estimator, and how it did on tenants that it had not seen."""

    estimator: Estimator
    frames: Frames
    """Of the tenants that it was fitted to."""
    held_out: Mapping[str, Backtest]
    """By tenant, what the candidates said of it, fitted to others; empty where there is only one."""
    raw: Mapping[str, Array]
    """By tenant, the chosen candidate's probabilities as they are, and as others' calibration has them."""
    calibrated: Mapping[str, Array]


def fit_global(frames: Frames, progress: Progress) -> FittedGlobal:
    """Fit, choose, calibrate. Raises TooLittleHistory: no tenant has enough."""
    enough = {tenant: frames[tenant] for tenant in sorted(frames) if _has_enough(frames[tenant])}
    if not enough:
        raise TooLittleHistory("no tenant has enough history of its own to learn from")
    folds = [list(enough)[first::FOLDS] for first in range(min(FOLDS, len(enough)))]
    held_out: dict[str, Backtest] = {}
    if len(enough) > 1:
        for number, fold in enumerate(folds):
            progress(f"tenants held out: part {number + 1}/{len(folds)}")
            held_out |= _predict(fold, enough)
    chosen = select_global(held_out)
    logits = {tenant: judged.logits[chosen.name] for tenant, judged in held_out.items()}
    raw = {tenant: BetaCalibration().apply(InNumpy(enough[tenant].inputs), own) for tenant, own in logits.items()}
    calibrated = {
        tenant: _calibrate(logits, held_out, [other for other in logits if other not in fold]).apply(
            InNumpy(enough[tenant].inputs), logits[tenant]
        )
        for fold in folds
        for tenant in fold
        if tenant in logits
    }
    helps = bool(held_out) and _mean_log_loss(calibrated, enough) < _mean_log_loss(raw, enough)
    progress("fit")
    unknown, trees = _fit(enough, learn=chosen.weight > 0)
    calibration = _calibrate(logits, held_out, list(logits)) if helps else BetaCalibration()
    return FittedGlobal(Estimator(chosen, unknown, trees, calibration), enough, held_out, raw, calibrated)


def select_global(held_out: Mapping[str, Backtest]) -> Candidate:
    """The base, unless trees order the tests of tenants that they had not seen better by more than chance, and for none
    worse by more than chance; chance is the standard error of the paired difference."""
    chosen, best_gain = BASE, 0.0
    figures = [order_figures(judged).apfd for judged in held_out.values()]
    figures = [apfd for apfd in figures if len(apfd[BASE.name]) >= LEAST_RUNS]
    if len(figures) < 2:
        return BASE
    for candidate in BLENDS:
        gains = [apfd[candidate.name] - apfd[BASE.name] for apfd in figures]
        means = np.array([gain.mean() for gain in gains])
        errors = np.array([gain.std() / np.sqrt(len(gain)) for gain in gains])
        error = np.sqrt((errors**2).sum()) / len(errors)
        if (means >= -errors).all() and means.mean() > max(best_gain, error):
            chosen, best_gain = candidate, float(means.mean())
    return chosen


def pooled_frame(frames: Frames) -> TestFrame:
    """All tenants' rows, one tenant after the other."""
    parts, first = [], 0
    for frame in frames.values():
        parts.append(replace(frame, run=frame.run + first))
        first = int(parts[-1].run.max()) + 1
    columns = ([getattr(part, name) for part in parts] for name in TestFrame.__dataclass_fields__)
    return TestFrame(*map(np.concatenate, columns))


def _has_enough(frame: TestFrame) -> bool:
    try:
        require_history(frame)
    except TooLittleHistory:
        return False
    return True


def _fit(frames: Frames, *, learn: bool) -> tuple[float, XGBRegressor | None]:
    unknown = float(np.mean([unknown_rate(frame.inputs, frame.failed) for frame in frames.values()]))
    if not learn:
        return unknown, None
    pooled = pooled_frame(frames)
    base = Estimator(BASE, unknown).logits(pooled.inputs)
    weights = equal_weights([len(frame.run) for frame in frames.values()])
    return unknown, fit_trees(pooled.inputs, pooled.failed, base, weights, TRANSFERABLE)


def equal_weights(sizes: Sequence[int]) -> Array:
    """Weights of rows, the mean 1, of which each tenant has the same sum."""
    share = sum(sizes) / len(sizes)
    return np.repeat([share / size for size in sizes], sizes)


def _predict(fold: Sequence[str], frames: Frames) -> dict[str, Backtest]:
    unknown, trees = _fit({tenant: frame for tenant, frame in frames.items() if tenant not in fold}, learn=True)
    assert trees is not None  # noqa: S101 - they were asked for
    said = {}
    for tenant in fold:
        frame = frames[tenant]
        learned = correction(trees, frame.inputs)
        logits = {one.name: score_logit(InNumpy(frame.inputs), one, unknown, learned) for one in CANDIDATES}
        nothing = np.zeros(len(frame.run), np.int64)
        said[tenant] = Backtest(frame, logits, nothing, np.full(len(frame.run), unknown), learned)
    return said


def _calibrate(
    logits: Mapping[str, Array], held_out: Mapping[str, Backtest], tenants: Sequence[str]
) -> BetaCalibration:
    return fit_calibration(
        np.concatenate([logits[tenant] for tenant in tenants]),
        np.concatenate([held_out[tenant].frame.failed for tenant in tenants]),
        equal_weights([len(logits[tenant]) for tenant in tenants]),
    )


def _mean_log_loss(said: Mapping[str, Array], frames: Frames) -> float:
    return float(np.mean([log_loss(own, frames[tenant].failed) for tenant, own in said.items()]))
