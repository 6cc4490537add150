"""Laws that every test-failure model passes, whichever candidate it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conductor_training.bundles import Bundle, ExportDiffers
from conductor_training.test_failure.bundle import make_bundle, run_graph
from conductor_training.test_failure.columns import COLUMNS, FALLING, INDEX, RISING
from conductor_training.test_failure.estimator import CANDIDATES, Candidate
from conductor_training.test_failure.fit import Fitted, TooLittleHistory, fit_tenant
from conductor_training.test_failure.frame import TestFrame, frame_of_runs
from conductor_training.test_failure.metrics import reliability
from training.test_runs import make_runs


def quiet(_: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def frame() -> TestFrame:
    return frame_of_runs(make_runs())


@pytest.fixture(scope="module")
def fitted(frame: TestFrame) -> Fitted:
    return fit_tenant(frame, quiet)


@pytest.fixture(scope="module")
def bundle(fitted: Fitted) -> Bundle:
    return make_bundle(fitted, "acme")


def test_the_same_data_give_the_same_model_byte_for_byte() -> None:
    one, two = (
        make_bundle(with_trees(fit_tenant(frame_of_runs(make_runs(runs=40, tests=15)), quiet)), "acme")
        for _ in range(2)
    )
    assert one.graph == two.graph
    assert one.manifest.SerializeToString(deterministic=True) == two.manifest.SerializeToString(deterministic=True)


def test_other_data_give_another_digest(frame: TestFrame) -> None:
    assert frame_of_runs(make_runs(runs=30)).digest() != frame_of_runs(make_runs(runs=30, seed=2)).digest()
    assert frame.take(frame.run > 0).digest() != frame.digest()


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_every_candidate_exports_to_an_equal_graph(fitted: Fitted, candidate: Candidate) -> None:
    chosen = replace(fitted, estimator=replace(fitted.estimator, candidate=candidate))
    exported = make_bundle(chosen, "acme")
    outputs = run_graph(exported.graph, fitted.frame.inputs)
    np.testing.assert_allclose(outputs, chosen.estimator.predict(fitted.frame.inputs), atol=1e-4)
    assert exported.manifest.algorithm == candidate.name
    assert [entry.candidate for entry in exported.manifest.candidates if entry.chosen] == [candidate.name]


def test_an_export_that_differs_is_refused(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conductor_training.test_failure.graph.START", 0.4)
    with pytest.raises(ExportDiffers, match="differ by up to"):
        make_bundle(with_trees(fitted), "acme")


def with_trees(fitted: Fitted) -> Fitted:
    return replace(fitted, estimator=replace(fitted.estimator, candidate=CANDIDATES[-1]))


def test_probabilities_are_probabilities_whatever_is_missing(fitted: Fitted) -> None:
    content = make_bundle(with_trees(fitted), "acme").graph
    generator = np.random.default_rng(5)
    inputs = generator.lognormal(3, 3, (2_000, len(COLUMNS))).astype(np.float32)
    inputs[generator.random(inputs.shape) < 0.4] = np.nan
    for column in COLUMNS:
        if column.default is not None:
            inputs[:, INDEX[column.name]] = np.nan_to_num(inputs[:, INDEX[column.name]], nan=column.default)
    outputs = run_graph(content, np.vstack([inputs, np.where(np.isnan(inputs), np.nan, 0)]).astype(np.float32))
    assert np.isfinite(outputs).all()
    assert ((outputs >= 0) & (outputs <= 1)).all()


def test_a_test_that_fails_more_is_never_likelier_to_pass(fitted: Fitted) -> None:
    content = make_bundle(with_trees(fitted), "acme").graph
    inputs = fitted.frame.inputs[::7]
    for columns, sign in ((RISING, 1.0), (FALLING, -1.0)):
        for column in columns:
            other = inputs.copy()
            place = INDEX[column.name]
            other[:, place] = other[:, place] * 1.5 + 0.1
            difference = (run_graph(content, other) - run_graph(content, inputs)) * sign
            assert difference.min() >= -1e-6, column.name


def test_rows_are_independent(bundle: Bundle, fitted: Fitted) -> None:
    inputs = fitted.frame.inputs
    together = run_graph(bundle.graph, inputs)
    order = np.random.default_rng(3).permutation(len(inputs))
    np.testing.assert_array_equal(run_graph(bundle.graph, inputs[order]), together[order])
    np.testing.assert_array_equal(run_graph(bundle.graph, inputs[:1]), together[:1])


def test_what_is_said_happens_that_often_in_runs_that_were_not_trained_on(bundle: Bundle, frame: TestFrame) -> None:
    later = frame_of_runs(make_runs(runs=220))  # the same past, then more runs of the same kind
    unseen = later.take(later.run > frame.run.max())
    said = run_graph(bundle.graph, unseen.inputs).astype(np.float64)
    assert reliability(said, unseen.failed, 5).error < 0.05
    assert bundle.manifest.probability_calibration.measured_error < 0.05


def test_trees_win_where_there_is_something_to_learn(bundle: Bundle) -> None:
    assert bundle.manifest.algorithm.startswith("xgboost")
    napfd = {entry.candidate: entry.napfd for entry in bundle.manifest.candidates}
    assert napfd[bundle.manifest.algorithm] > max(value for name, value in napfd.items() if "xgboost" not in name)


def test_a_naive_rule_stays_where_there_is_nothing_to_learn() -> None:
    runs = make_runs(runs=60, touched=False)
    assert fit_tenant(frame_of_runs(runs), quiet).estimator.candidate.weight == 0


def test_golden_requests_are_the_graphs_own_answers(bundle: Bundle) -> None:
    golden = bundle.manifest.golden_requests
    assert len(golden) == 8
    inputs = np.array([list(request.inputs) for request in golden], dtype=np.float32)
    expected = np.array([list(request.outputs) for request in golden], dtype=np.float32)[:, 0]
    np.testing.assert_array_equal(run_graph(bundle.graph, inputs), expected)


def test_too_little_history_is_told() -> None:
    with pytest.raises(TooLittleHistory, match="runs: 12"):
        fit_tenant(frame_of_runs(make_runs(runs=12)), quiet)
