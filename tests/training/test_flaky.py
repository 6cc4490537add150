"""The model of flaky failures: what it learns from, and that its graph says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from conductor_model_store import ModelStore
from conductor_server.models.sessions import ModelRefused, check_golden_requests, check_signature, open_session
from conductor_training.bundles import Bundle
from conductor_training.test_failure.calibration import BetaCalibration
from conductor_training.test_failure.fit import TooLittleHistory
from conductor_training.test_failure.flaky import JudgedFlaky, fit_flaky, is_flaky, tried_again
from conductor_training.test_failure.flaky_fit import FittedFlaky, fit_flaky_tenant, judge_flaky, make_flaky_bundle
from conductor_training.test_failure.frame import Run, TestFrame, frame_of_runs
from conductor_training.test_failure.jobs import train_tests
from conductor_training.test_failure.metrics import reliability
from training.test_runs import make_runs


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Every test is tried twice. Even ones flip a coin each time; odd ones fail twice, for days on end."""
    generator = np.random.default_rng(4)
    runs = []
    for number, run in enumerate(make_runs(runs=60, tests=8)):
        tests = [f"t{place}" for place in range(8)]
        broken = np.array([place % 2 == 1 and (number // 10 + place) % 3 == 0 for place in range(8)])
        tries = [np.where(np.arange(8) % 2 == 0, generator.random(8) < 0.4, broken) for _ in range(2)]
        outcomes, durations = np.concatenate(tries).astype(np.float64), np.ones(16)
        runs.append(replace(run, tests=tests * 2, outcomes=outcomes, durations=durations, changed_paths=[]))
    return runs


@pytest.fixture(scope="module")
def frame(runs: list[Run]) -> TestFrame:
    return frame_of_runs(runs)


@pytest.fixture(scope="module")
def fitted(frame: TestFrame) -> FittedFlaky:
    return fit_flaky_tenant(frame)


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


def serves(bundle: Bundle) -> None:
    """What the server checks before a model answers. Raises ModelRefused."""
    session = open_session(bundle.graph)
    check_signature(session, bundle.manifest)
    check_golden_requests(session, bundle.manifest)


def test_its_bundle_is_one_that_serves(fitted: FittedFlaky, frame: TestFrame) -> None:
    bundle = make_flaky_bundle(fitted, "acme")
    serves(bundle)
    manifest = bundle.manifest
    assert (manifest.predictor, manifest.tenant_id, manifest.algorithm) == (
        "test-flakiness",
        "acme",
        "logistic-regression",
    )
    known = frame.take(tried_again(frame))
    assert manifest.fallback.overall_rate.rate == pytest.approx(is_flaky(known).mean())
    assert manifest.fallback.overall_rate.row_count == manifest.training_data.row_count == len(known.run)
    losses = {candidate.candidate: candidate.log_loss for candidate in manifest.candidates}
    assert losses["logistic-regression"] < losses["share-so-far"]
    again = make_flaky_bundle(fit_flaky_tenant(frame), "acme").manifest
    assert again.SerializeToString(deterministic=True) == manifest.SerializeToString(deterministic=True)
    manifest.golden_requests[0].outputs[0] += 0.01
    with pytest.raises(ModelRefused, match="golden"):
        serves(bundle)


def test_it_is_calibrated_where_that_makes_the_measured_error_smaller(fitted: FittedFlaky) -> None:
    judged = fitted.judged
    errors = [reliability(said, judged.flaky).error for said in (expit(judged.logits), judged.calibrated())]
    assert fitted.measured_error == min(errors)
    assert fitted.calibrated == (errors[1] < errors[0]) == (fitted.estimator.calibration != BetaCalibration())


def test_a_calibration_has_not_seen_what_it_is_measured_on(fitted: FittedFlaky) -> None:
    judged = fitted.judged

    def otherwise(which: NDArray[np.bool_]) -> JudgedFlaky:
        """What was flaky is broken."""
        failed = np.where(which, judged.frame.result_count, judged.frame.failed_count)
        return replace(judged, frame=replace(judged.frame, failed_count=failed))

    last = judged.stretch == judged.stretch.max()
    np.testing.assert_array_equal(otherwise(last).calibrated(), judged.calibrated())
    assert (otherwise(~last).calibrated()[last] != judged.calibrated()[last]).all()


def test_a_model_that_knows_no_more_than_the_share_is_not_published(frame: TestFrame) -> None:
    generator = np.random.default_rng(3)
    failed = np.where(generator.random(len(frame.run)) < 0.5, frame.result_count, 1.0)
    with pytest.raises(TooLittleHistory, match="no more than the share"):
        fit_flaky_tenant(replace(frame, failed_count=failed))


def test_it_is_published_beside_the_model_of_failures(runs: list[Run], tmp_path: Path) -> None:
    store = ModelStore.open(tmp_path)
    trained = {(one.tenant_id, one.predictor): one for one in train_tests({"acme": runs}, store, lambda _: None)}
    assert set(trained) == {("", "test-failure"), ("acme", "test-failure"), ("acme", "test-flakiness")}
    for (tenant_id, predictor), one in trained.items():
        pointer = store.resolve(predictor, tenant_id)
        assert pointer is not None and pointer.version == one.version
        loaded = store.load_pointer(pointer)
        serves(Bundle(loaded.manifest, loaded.graph))
