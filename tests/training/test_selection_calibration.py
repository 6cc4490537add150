"""What a test-failure model's manifest holds for promises: what it would have said of past failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import CalibrationRun
from conductor_model_store.promise import calibrate
from conductor_training.test_failure import selection_calibration as module
from conductor_training.test_failure.bundle import make_bundle, run_graph
from conductor_training.test_failure.estimator import BASE, BLENDS, RULES, Candidate
from conductor_training.test_failure.fit import Fitted, fit_tenant
from conductor_training.test_failure.frame import frame_of_runs
from conductor_training.test_failure.prequential import replay_selection
from conductor_training.test_failure.selection_calibration import judged_probabilities, selection_calibration
from training.test_runs import make_runs

ALPHAS = (0.05, 0.1, 0.2)
WINDOW = 40


@pytest.fixture(scope="module")
def trained() -> Fitted:
    return fit_tenant(frame_of_runs(make_runs(runs=140, tests=12)), lambda _: None)


def served_by(trained: Fitted, candidate: Candidate) -> Fitted:
    return replace(trained, estimator=replace(trained.estimator, candidate=candidate))


def probabilities(run: CalibrationRun) -> NDArray[np.float64]:
    return np.array(run.failed_probabilities)


@pytest.mark.parametrize("candidate", [BASE, BLENDS[-1], RULES[1]], ids=lambda candidate: candidate.name)
def test_a_promise_on_probabilities_selects_what_one_on_scores_does(trained: Fitted, candidate: Candidate) -> None:
    fitted = served_by(trained, candidate)
    judged = fitted.backtest.without_first()
    said, logits = judged_probabilities(fitted, judged), judged.logits[candidate.name]
    failed = judged.frame.failed > 0
    scores = [logits[failed & (judged.frame.run == run)] for run in np.unique(judged.frame.run[failed])]
    calibration = selection_calibration(fitted)
    assert [len(run.failed_probabilities) for run in calibration.runs] == list(map(len, scores))
    for alpha in ALPHAS:
        ours = calibrate([probabilities(run) for run in calibration.runs], alpha)
        theirs = calibrate(scores, alpha)
        assert not ours.selects_everything
        # Equal scores may differ in the last bit of a float64; their probabilities do not.
        np.testing.assert_array_equal(said >= ours.score, logits >= theirs.score - 1e-9)


def test_one_after_the_other_the_runs_give_what_a_replay_of_the_backtest_gives(trained: Fitted) -> None:
    judged = trained.backtest.without_first()
    runs = make_bundle(trained, "acme").manifest.selection_calibration.runs
    for alpha in ALPHAS:
        expected = replay_selection(judged, judged.logits[trained.estimator.candidate.name], alpha, WINDOW)
        missed = expected.missed[~np.isnan(expected.missed)]
        assert missed.any()
        np.testing.assert_allclose(replayed(runs, alpha), missed)


def replayed(runs: Sequence[CalibrationRun], alpha: float) -> list[float]:
    """What would have been missed of each run, by what the manifest tells and nothing else."""
    missed: list[float] = []
    for run in runs:
        known = [place for place, past in enumerate(runs) if before(past, run)][-WINDOW:]
        threshold = calibrate(
            [probabilities(runs[place]) for place in known], alpha, [missed[place] for place in known]
        )
        missed.append(float((probabilities(run) < threshold.score).mean()))
    return missed


def before(past: CalibrationRun, run: CalibrationRun) -> bool:
    return past.completed_time.ToMicroseconds() < run.start_time.ToMicroseconds()


def test_a_test_that_ties_with_a_past_failure_has_its_very_probability(trained: Fitted) -> None:
    """Or half of such tests would be left out by a rounding."""
    fitted = served_by(trained, RULES[0])
    judged = fitted.backtest.without_first()
    ran_before = ~np.isnan(judged.frame.inputs[:, 0])
    now = run_graph(make_bundle(fitted, "acme").graph, judged.frame.inputs)
    np.testing.assert_array_equal(judged_probabilities(fitted, judged)[ran_before], now[ran_before])


def test_runs_are_the_latest_and_no_more_than_a_bound_of_all_numbers(
    trained: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(selection_calibration(trained).runs)
    starts = [run.start_time.ToMicroseconds() for run in whole]
    assert starts == sorted(starts)
    backtest = trained.backtest
    assert starts[0] / 1e6 >= backtest.frame.started[backtest.stretch == 1][0], "nothing was known before the first"
    latest = backtest.frame.started[backtest.frame.failed > 0].max()
    assert starts[-1] / 1e6 == latest
    monkeypatch.setattr(module, "MOST_RUNS", 7)
    assert list(selection_calibration(trained).runs) == whole[-7:]
    numbers = len(whole[-1].failed_probabilities) + len(whole[-2].failed_probabilities)
    monkeypatch.setattr(module, "MOST_PROBABILITIES", numbers)
    assert list(selection_calibration(trained).runs) == whole[-2:]
    monkeypatch.setattr(module, "MOST_PROBABILITIES", 0)
    assert not selection_calibration(trained).runs


def test_without_failures_after_the_first_stretch_it_is_empty(trained: Fitted) -> None:
    backtest = trained.backtest
    none = backtest.take((backtest.stretch == 0) | (backtest.frame.failed == 0))
    assert not selection_calibration(replace(trained, backtest=none)).runs
