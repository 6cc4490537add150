"""What a test-failure model's manifest holds for promises: what it would have said of past failures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from conductor.model.v1.model_manifest_pb2 import CalibrationRun
from conductor_model_store.promise import calibrate
from conductor_training.test_failure import selection_calibration as module
from conductor_training.test_failure.arithmetic import InNumpy
from conductor_training.test_failure.bundle import make_bundle, run_graph
from conductor_training.test_failure.estimator import BASE, BLENDS, RULES, Candidate
from conductor_training.test_failure.fit import Fitted, fit_tenant
from conductor_training.test_failure.frame import Run, frame_of_runs
from conductor_training.test_failure.prequential import replay_selection
from conductor_training.test_failure.selection_calibration import judged_probabilities, selection_calibration
from conductor_training.test_failure.trees import features
from conductor_workbench.datasets import tcp
from training.test_runs import make_runs

ALPHAS = (0.05, 0.1, 0.2)
WINDOW = 40


@pytest.fixture(scope="module")
def trained() -> Fitted:
    """Of runs to which a test is added now and then, so that what is known of new tests changes."""
    runs = []
    for number, run in enumerate(make_runs(runs=140, tests=14)):
        count = 6 + number // 15
        told = {"tests": run.tests[:count], "outcomes": run.outcomes[:count], "durations": run.durations[:count]}
        runs.append(replace(run, **told))  # type: ignore[arg-type]
    return fit_tenant(frame_of_runs(runs), lambda _: None)


def served_by(trained: Fitted, candidate: Candidate) -> Fitted:
    return replace(trained, estimator=replace(trained.estimator, candidate=candidate))


def probabilities(run: CalibrationRun) -> NDArray[np.float64]:
    return np.array(run.failed_probabilities)


@pytest.mark.parametrize("candidate", [BASE, BLENDS[-1], RULES[1]], ids=lambda candidate: candidate.name)
def test_a_promise_on_probabilities_selects_what_one_on_scores_does(trained: Fitted, candidate: Candidate) -> None:
    fitted = served_by(trained, candidate)
    judged = fitted.backtest.without_first()
    said, logits = judged_probabilities(fitted, judged), judged.logits[candidate.name]
    expected = fitted.estimator.calibration.apply(InNumpy(judged.frame.inputs), logits)
    np.testing.assert_allclose(said, expected, atol=1e-6)
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
        np.testing.assert_allclose(replayed(runs, alpha), missed)
    assert missed.any()


def replayed(runs: Sequence[CalibrationRun], alpha: float, window: int = WINDOW) -> list[float]:
    """What would have been missed of each run, by what the manifest tells and nothing else."""
    missed: list[float] = []
    for run in runs:
        known = [place for place, past in enumerate(runs) if before(past, run)][-window:]
        threshold = calibrate(
            [probabilities(runs[place]) for place in known], alpha, [missed[place] for place in known]
        )
        missed.append(float((probabilities(run) < threshold.score).mean()))
    return missed


def before(past: CalibrationRun, run: CalibrationRun) -> bool:
    return past.completed_time.ToMicroseconds() < run.start_time.ToMicroseconds()


@pytest.mark.parametrize("candidate", [RULES[0], BLENDS[-1]], ids=lambda candidate: candidate.name)
def test_a_test_that_ties_with_a_past_failure_is_not_below_it(trained: Fitted, candidate: Candidate) -> None:
    """Wherever it stands in its batch; or such tests would be left out by a rounding."""
    fitted = served_by(trained, candidate)
    # As if everything had been judged by what is published, of which nothing but the trees' sum is told.
    backtest = fitted.backtest
    learned = fitted.estimator.trees.predict(  # type: ignore[union-attr]
        features(backtest.frame.inputs), output_margin=True, base_margin=np.zeros(len(backtest.learned), np.float32)
    )
    unknown = np.full(len(backtest.unknown), fitted.estimator.unknown)
    same = replace(fitted, backtest=replace(backtest, unknown=unknown, learned=learned.astype(np.float64)))
    told = np.concatenate([probabilities(run) for run in selection_calibration(same).runs])
    inputs = backtest.frame.inputs[(backtest.frame.failed > 0) & (backtest.stretch > 0)]
    graph = make_bundle(fitted, "acme").graph
    for order in (np.arange(len(inputs)), np.arange(len(inputs))[::-1]):
        for size in (7, len(inputs)):
            now = np.empty(len(inputs))
            for begin in range(0, len(inputs), size):
                batch = order[begin : begin + size]
                now[batch] = run_graph(graph, inputs[batch])
            assert (now >= told).all()
            np.testing.assert_allclose(now, told, rtol=0, atol=1e-6)


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


@pytest.mark.parametrize(
    ("file", "missed"),
    [
        ("iofrol.csv.gz", (0.002, 0.022, 0.056)),
        ("square@retrofit__features-engineered-contextual.parquet", (0.0, 0.0, 0.042)),
    ],
)
def test_real_histories_give_the_figures_that_are_told(file: str, missed: tuple[float, ...], long_form: bool) -> None:
    """Those of ``docs/models/test-failure.md``."""
    path = Path(os.environ.get("CONDUCTOR_DATA_HOME", ".")) / "tcp" / file
    if not long_form or not path.exists():
        pytest.skip("a long form, of data in CONDUCTOR_DATA_HOME: give --duration 1")
    runs = [Run.of(event.tenant_id, event.data) for event in tcp.convert([path], tcp.Report())]
    calibration = make_bundle(fit_tenant(frame_of_runs(runs), lambda _: None), "acme").manifest.selection_calibration
    told = [np.mean(replayed(calibration.runs, alpha, window=200)) for alpha in (0.01, 0.05, 0.1)]
    np.testing.assert_allclose(told, missed, atol=5e-4)
