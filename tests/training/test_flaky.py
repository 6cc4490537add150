"""The model of flaky failures: what it learns from, and that its graph says the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from conductor_training.test_failure.fit import TooLittleHistory
from conductor_training.test_failure.flaky import fit_flaky, is_flaky, tried_again
from conductor_training.test_failure.flaky_fit import judge_flaky
from conductor_training.test_failure.frame import TestFrame, frame_of_runs
from training.test_runs import make_runs


@pytest.fixture(scope="module")
def frame() -> TestFrame:
    """Every test is tried twice. Even ones flip a coin each time; odd ones fail twice, for days on end."""
    generator = np.random.default_rng(4)
    runs = []
    for number, run in enumerate(make_runs(runs=60, tests=8)):
        tests = [f"t{place}" for place in range(8)]
        broken = np.array([place % 2 == 1 and (number // 10 + place) % 3 == 0 for place in range(8)])
        tries = [np.where(np.arange(8) % 2 == 0, generator.random(8) < 0.4, broken) for _ in range(2)]
        outcomes, durations = np.concatenate(tries).astype(np.float64), np.ones(16)
        runs.append(replace(run, tests=tests * 2, outcomes=outcomes, durations=durations, changed_paths=[]))
    return frame_of_runs(runs)


def test_what_flips_is_flaky_and_what_is_broken_is_not(frame: TestFrame) -> None:
    late = frame.take((frame.run > 20) & tried_again(frame))
    said = fit_flaky(frame).predict(late.inputs)
    even = np.array([int(test[1:]) % 2 == 0 for test in late.test])
    assert said[even].mean() > 0.6
    assert said[~even].mean() < 0.2
    assert is_flaky(late)[~even].sum() == 0


def test_the_graph_says_the_same(frame: TestFrame) -> None:
    estimator = fit_flaky(frame)
    content = estimator.export().SerializeToString(deterministic=True)
    assert content == fit_flaky(frame).export().SerializeToString(deterministic=True)
    (said,) = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"inputs": frame.inputs})
    np.testing.assert_allclose(said, estimator.predict(frame.inputs), atol=1e-5)
    assert np.isfinite(said).all()


def test_it_is_judged_from_the_past_only_and_beats_the_share_so_far(frame: TestFrame) -> None:
    figures = judge_flaky(frame, 6)
    assert figures is not None
    assert figures["area_under_roc"] > 0.8
    assert figures["log_loss"] < figures["log_loss_of_the_share_so_far"]


def test_without_failures_that_were_tried_again_there_is_no_model() -> None:
    once = frame_of_runs(make_runs(runs=40, tests=8))
    with pytest.raises(TooLittleHistory, match="tried again: 0"):
        fit_flaky(once)
    assert judge_flaky(once, 4) is None
