"""All figures of one history: what an order, a probability and a promise of each run came to, from the past only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.backtest import Backtest, Progress, run_backtest
from conductor_training.test_failure.estimator import BASE, RULES
from conductor_training.test_failure.flaky_fit import judge_flaky
from conductor_training.test_failure.frame import TestFrame
from conductor_training.test_failure.metrics import (
    Reliability,
    apfd,
    apfdc,
    best_apfd,
    gain,
    log_loss,
    napfd,
    paired,
    precision_at_recall,
    reliability,
)
from conductor_training.test_failure.order import expected_seconds, per_second
from conductor_training.test_failure.prequential import Judged, Selected, judge, replay_selection
from conductor_training.test_failure.runs import Results

STRETCHES = 24
"""How often a model is fitted anew over a history."""
LEAST_RESULTS = 6
"""Orders are judged on runs with as many results, as the study of RETECS does."""
ALPHAS = (0.01, 0.05, 0.10)
WINDOW = 200
"""Latest runs with a failure that a promise is calibrated on."""
SLIDING = 50
"""Runs with a failure over which the realised rate is looked at."""
CHAMPION = "champion"
PER_SECOND = "per second"
GRID = np.linspace(0, 1, 51)


@dataclass(frozen=True)
class Evaluation:
    """Figures as plain values, and what the plots are drawn of."""

    figures: dict[str, Any]
    gains: dict[str, Array]
    """By candidate: share of the failures found at each share of the time, on :data:`GRID`."""
    reliability: Reliability
    trade_off: list[tuple[float, float, float]]
    """(α, realised miss rate, share of time saved)."""


def evaluate(frame: TestFrame, progress: Progress) -> Evaluation:
    """Go through a history once."""
    backtest = run_backtest(frame, progress, STRETCHES)
    judged = judge(backtest)
    results = Results.of(frame)
    logits = {**backtest.logits, CHAMPION: judged.logits}
    seconds = expected_seconds(frame)
    for name in (*(rule.name for rule in RULES), BASE.name):
        logits[f"{name} {PER_SECOND}"] = per_second(expit(logits[name]), seconds)
    logits[f"{CHAMPION} {PER_SECOND}"] = per_second(judged.probabilities, seconds)
    progress("orders")
    orders = _orders(results, logits)
    rules = [rule.name for rule in RULES]
    best_rule = max(rules, key=lambda name: orders[name]["apfd"])
    progress("promises")
    promises, trade_off = [], []
    for alpha in (*ALPHAS, 0.2, 0.3):
        selected = replay_selection(backtest, judged.logits, alpha, WINDOW)
        if alpha in ALPHAS:
            promises.append(_promise(alpha, selected))
        trade_off.append(
            (alpha, float(np.nanmean(selected.missed)), _saved(selected, np.ones(len(selected.cost), bool)))
        )
    calibration, bins = _calibration(backtest, judged, results)
    return Evaluation(
        figures={
            "runs": len(results.run),
            "results": len(results.row),
            "failed_share": float(results.failed.mean()),
            "judged_runs": orders[CHAMPION]["runs"],
            "best_possible_apfd": float(np.nanmean(results.figures(logits[CHAMPION], _best, LEAST_RESULTS))),
            "champions": list(judged.champions),
            "orders": orders,
            "best_rule": best_rule,
            "calibration": calibration,
            "promises": promises,
            "flaky": judge_flaky(frame, STRETCHES),
        },
        gains={name: _gain(results, logits[name]) for name in (CHAMPION, *rules)},
        reliability=bins,
        trade_off=trade_off,
    )


def _apfd(scores: Array, failed: Array, _: Array) -> float:
    return apfd(scores, failed)


def _best(_: Array, failed: Array, __: Array) -> float:
    return best_apfd(failed)


def _half_time(scores: Array, failed: Array, costs: Array) -> float:
    return napfd(scores, failed, costs, budget=0.5)


def _orders(results: Results, logits: dict[str, Array]) -> dict[str, dict[str, Any]]:
    figures = {
        kind: {name: _known(results.figures(values, figure, LEAST_RESULTS)) for name, values in logits.items()}
        for kind, figure in (("apfd", _apfd), ("napfd_half_time", _half_time), ("apfdc", apfdc))
    }
    told = {}
    for name in logits:
        values = figures["apfd"][name]
        half = len(values) // 2
        entry: dict[str, Any] = {
            "runs": len(values),
            "apfd": float(values.mean()),
            "apfd_first_half": float(values[:half].mean()),
            "apfd_second_half": float(values[half:].mean()),
        }
        for kind in figures:
            entry[kind] = float(figures[kind][name].mean())
            champion = f"{CHAMPION} {PER_SECOND}" if kind == "apfdc" else CHAMPION
            ours = paired(figures[kind][champion], figures[kind][name])
            entry[f"champion_{kind}_difference"] = ours.mean_difference
            entry[f"champion_{kind}_wins_losses"] = [ours.wins, ours.losses]
            entry[f"champion_{kind}_p_value"] = ours.p_value
        told[name] = entry
    return told


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]


def _gain(results: Results, logits: Array) -> Array:
    curves = []
    for part in results.parts():
        failed = results.failed[part]
        if len(failed) >= LEAST_RESULTS and failed.any():
            curves.append(gain(logits[results.row[part]], failed, results.cost[part], GRID))
    return np.mean(curves, axis=0) if curves else GRID


def _calibration(backtest: Backtest, judged: Judged, results: Results) -> tuple[dict[str, Any], Reliability]:
    """Of the stretches that something calibrated had been known before."""
    late = backtest.stretch >= 2
    said, failed = judged.probabilities[late], backtest.frame.failed[late]
    raw = expit(judged.logits[late])
    bins = reliability(said, failed)
    of_late = late[results.row]
    figures = {
        "rows": int(late.sum()),
        "base_rate": float(failed.mean()),
        "expected_calibration_error": bins.error,
        "before_calibration": reliability(raw, failed).error,
        "log_loss": log_loss(said, failed),
        "log_loss_before_calibration": log_loss(raw, failed),
        "precision_at_recall_70": precision_at_recall(said, failed, 0.7),
        "precision_at_recall_70_of_results": precision_at_recall(
            judged.probabilities[results.row][of_late], results.failed[of_late], 0.7
        ),
    }
    return figures, bins


def _promise(alpha: float, selected: Selected) -> dict[str, Any]:
    missed = _known(selected.missed)
    under = _known(np.where(selected.calibrated, selected.missed, np.nan))
    sliding = np.convolve(missed, np.full(SLIDING, 1 / SLIDING), "valid") if len(missed) >= SLIDING else np.empty(0)
    return {
        "alpha": alpha,
        "runs_with_failure": len(missed),
        "of_them_with_a_threshold": len(under),
        "missed": float(missed.mean()),
        "missed_with_a_threshold": float(under.mean()) if len(under) else None,
        "runs_with_a_miss": float((missed > 0).mean()),
        "sliding_windows": len(sliding),
        "sliding_windows_above_alpha": int((sliding > alpha + 1e-12).sum()),
        "worst_sliding_window": float(sliding.max()) if len(sliding) else None,
        "time_saved": _saved(selected, np.ones(len(selected.cost), bool)),
        "time_saved_with_a_threshold": _saved(selected, selected.calibrated),
    }


def _saved(selected: Selected, which: Any) -> float:
    cost = selected.cost[which]
    return float(1 - (selected.kept_cost[which] * cost).sum() / cost.sum()) if cost.sum() else 0.0
