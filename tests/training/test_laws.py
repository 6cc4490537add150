"""Laws that every build-duration model passes, whichever candidate it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conductor_training.build_duration.bundle import make_bundle, run_graph
from conductor_training.build_duration.columns import COLUMNS, INDEX
from conductor_training.build_duration.estimator import CANDIDATES, Candidate
from conductor_training.build_duration.fit import Fitted, TooLittleHistory, fit_global, fit_tenant
from conductor_training.build_duration.heads import spread
from conductor_training.build_duration.inputs import frame_inputs
from conductor_training.bundles import Bundle, ExportDiffers
from conductor_training.frame import BuildFrame
from training.frames import join, make_frame


def quiet(_: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def frame() -> BuildFrame:
    return make_frame()


@pytest.fixture(scope="module")
def fitted(frame: BuildFrame) -> Fitted:
    return fit_tenant(frame, quiet)


@pytest.fixture(scope="module")
def bundle(fitted: Fitted, frame: BuildFrame) -> Bundle:
    return make_bundle(fitted, frame, "acme")


def test_the_same_data_give_the_same_model_byte_for_byte(bundle: Bundle) -> None:
    again = make_frame()
    second = make_bundle(fit_tenant(again, quiet), again, "acme")
    assert second.graph == bundle.graph
    assert second.manifest.SerializeToString(deterministic=True) == bundle.manifest.SerializeToString(
        deterministic=True
    )


def test_other_data_give_another_digest(bundle: Bundle) -> None:
    other = make_frame(seed=2)
    second = make_bundle(fit_tenant(other, quiet), other, "acme").manifest
    assert second.graph.digest != bundle.manifest.graph.digest
    assert second.training_data.dataset_digest != bundle.manifest.training_data.dataset_digest


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_every_candidate_exports_to_an_equal_graph(fitted: Fitted, frame: BuildFrame, candidate: Candidate) -> None:
    chosen = replace(fitted, estimator=replace(fitted.estimator, candidate=candidate))
    exported = make_bundle(chosen, frame, "acme")
    inputs = frame_inputs(fitted.frame)
    np.testing.assert_allclose(run_graph(exported.graph, inputs), chosen.estimator.predict(inputs), rtol=1e-4)
    assert exported.manifest.algorithm == candidate.name
    assert [entry.candidate for entry in exported.manifest.candidates if entry.chosen] == [candidate.name]


def test_an_export_that_differs_is_refused(fitted: Fitted, frame: BuildFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conductor_training.build_duration.graph.TAIL_SHARE", 0.25)
    with pytest.raises(ExportDiffers, match="differ by up to"):
        make_bundle(fitted, frame, "acme")


def test_bounds_are_ordered_finite_and_positive_whatever_is_missing(bundle: Bundle) -> None:
    generator = np.random.default_rng(5)
    rows = 2_000
    inputs = generator.lognormal(3, 2, (rows, len(COLUMNS))).astype(np.float32)
    optional = [index for index, column in enumerate(COLUMNS) if not column.required]
    missing = generator.random((rows, len(optional))) < 0.4
    inputs[:, optional] = np.where(missing, np.nan, inputs[:, optional])
    outputs = run_graph(bundle.graph, inputs)
    assert np.isfinite(outputs).all()
    assert (outputs > 0).all()
    assert (outputs[:, 0] <= outputs[:, 1]).all()
    assert (outputs[:, 1] <= outputs[:, 2]).all()


def test_what_is_learned_moves_the_median_by_the_spread_at_most(bundle: Bundle, fitted: Fitted) -> None:
    inputs = frame_inputs(fitted.frame)
    inputs[:, INDEX["added_line_count"]] = 1e9
    median = run_graph(bundle.graph, inputs)[:, 1]
    low, high = (inputs[:, INDEX[f"pipeline.median_duration_{n}"]] for n in (7, 15))
    centre = np.sqrt(low * high)
    assert (np.abs(np.log(median / centre)) <= spread(inputs) + 0.2).all()


def test_rows_are_independent(bundle: Bundle, fitted: Fitted) -> None:
    inputs = frame_inputs(fitted.frame)
    together = run_graph(bundle.graph, inputs)
    order = np.random.default_rng(3).permutation(len(inputs))
    np.testing.assert_array_equal(run_graph(bundle.graph, inputs[order]), together[order])
    np.testing.assert_array_equal(run_graph(bundle.graph, inputs[:1]), together[:1])


def test_coverage_holds_on_rows_that_were_not_trained_on(bundle: Bundle, frame: BuildFrame) -> None:
    later = make_frame(rows=900, seed=1)  # the same past, then builds of the same kind
    unseen = BuildFrame(later.rows.iloc[len(frame.rows) :].reset_index(drop=True), later.until)
    lower, _, upper = run_graph(bundle.graph, frame_inputs(unseen)).T
    duration = unseen.rows.duration.to_numpy()
    assert 0.85 <= float(((duration >= lower) & (duration <= upper)).mean()) <= 0.97


def test_it_beats_every_naive_rule_where_there_is_something_to_learn(bundle: Bundle) -> None:
    errors = {entry.candidate: entry.mae_seconds for entry in bundle.manifest.candidates}
    chosen = errors[bundle.manifest.algorithm]
    assert bundle.manifest.algorithm.startswith("xgboost")
    assert all(chosen < errors[rule] for rule in ("last", "mean7", "median7", "median500", "base"))


def test_a_naive_rule_wins_where_it_is_right_beyond_doubt() -> None:
    frame = make_frame(rows=600)
    steps = np.exp(np.cumsum(np.random.default_rng(4).choice([-0.08, 0.08], 600)))
    frame.rows["duration"] = 300.0 * steps
    frame.rows["pipeline_builds_v1__last_duration"] = frame.rows.duration  # an oracle
    assert fit_tenant(frame, quiet).estimator.candidate.name == "last"


def test_golden_requests_are_the_graphs_own_answers(bundle: Bundle) -> None:
    golden = bundle.manifest.golden_requests
    assert len(golden) == 8
    inputs = np.array([list(request.inputs) for request in golden], dtype=np.float32)
    expected = np.array([list(request.outputs) for request in golden], dtype=np.float32)
    np.testing.assert_array_equal(run_graph(bundle.graph, inputs), expected)


def test_too_little_history_is_told() -> None:
    with pytest.raises(TooLittleHistory, match="100"):
        fit_tenant(make_frame(rows=60), quiet)


def test_the_global_model_serves_a_level_that_no_tenant_had() -> None:
    frame = join(make_frame(tenant="a", level=60.0), make_frame(tenant="b", level=1_000.0, seed=2))
    fitted = fit_global(frame, quiet)
    content = make_bundle(fitted, frame, "").graph
    stranger = make_frame(tenant="c", level=9_000.0, seed=3)
    known = BuildFrame(stranger.rows.iloc[50:].reset_index(drop=True), stranger.until)
    lower, median, upper = run_graph(content, frame_inputs(known)).T
    duration = known.rows.duration.to_numpy()
    assert float((np.abs(median - duration) / duration).mean()) < 0.15
    assert float(((duration >= lower) & (duration <= upper)).mean()) > 0.8
    assert {entry.tenant_id for entry in make_bundle(fitted, frame, "").manifest.fallback.pipelines} == {"a", "b"}
