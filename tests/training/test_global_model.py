"""The model of tenants without history: what it learns from others, and what it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from conductor_training.test_failure import pooling
from conductor_training.test_failure.bundle import run_graph
from conductor_training.test_failure.columns import COLUMNS, INDEX, TRANSFERABLE
from conductor_training.test_failure.estimator import BASE, BLENDS
from conductor_training.test_failure.fit import TooLittleHistory
from conductor_training.test_failure.frame import TestFrame, frame_of_runs
from conductor_training.test_failure.global_bundle import figures, make_global_bundle
from conductor_training.test_failure.pooling import FittedGlobal, equal_weights, fit_global, pooled_frame
from training.test_runs import make_runs


def quiet(_: str) -> None:
    """No progress."""


def frame_of(tenant: int, runs: int = 50) -> TestFrame:
    return frame_of_runs(make_runs(runs=runs, tests=8, seed=tenant))


@pytest.fixture(scope="module")
def frames() -> dict[str, TestFrame]:
    """In all of them tests fail when their file was changed; one is larger than the others, one too small."""
    return {"a": frame_of(11), "b": frame_of(12, runs=100), "c": frame_of(13), "small": frame_of(14, runs=12)}


@pytest.fixture(scope="module")
def fitted(frames: dict[str, TestFrame]) -> FittedGlobal:
    return fit_global(frames, quiet)


def test_what_holds_for_every_tenant_is_learned(fitted: FittedGlobal) -> None:
    assert list(fitted.held_out) == ["a", "b", "c"]
    assert fitted.estimator.candidate in BLENDS
    told = figures(fitted)
    for tenant in told["held_out"].values():  # type: ignore[attr-defined]
        assert tenant["apfd"][fitted.estimator.candidate.name] > tenant["apfd"][BASE.name]


def test_the_base_stays_where_there_is_nothing_to_learn(frames: dict[str, TestFrame]) -> None:
    generator = np.random.default_rng(2)
    drawn = {
        tenant: replace(frame, failed_count=generator.permutation(frame.failed_count))
        for tenant, frame in frames.items()
    }
    assert fit_global(drawn, quiet).estimator.candidate == BASE


def test_a_tenant_is_judged_by_what_others_taught(frames: dict[str, TestFrame], fitted: FittedGlobal) -> None:
    turned = replace(frames["a"], failed_count=frames["a"].result_count - frames["a"].failed_count)
    again = fit_global({**frames, "a": turned}, quiet)
    for name, logits in fitted.held_out["a"].logits.items():
        np.testing.assert_array_equal(logits, again.held_out["a"].logits[name])
    assert (fitted.held_out["b"].logits[BASE.name] != again.held_out["b"].logits[BASE.name]).any()


def test_each_tenant_weighs_the_same_however_much_it_ran(frames: dict[str, TestFrame], fitted: FittedGlobal) -> None:
    weights = equal_weights([2, 6, 1])
    assert weights.mean() == pytest.approx(1)
    assert [part.sum() for part in np.split(weights, [2, 8])] == pytest.approx([3, 3, 3])
    manifest = make_global_bundle(fitted).manifest
    shares = [frames[tenant].failed.mean() for tenant in ("a", "b", "c")]
    assert manifest.fallback.overall_rate.rate == pytest.approx(np.mean(shares))
    assert manifest.fallback.overall_rate.rate != pytest.approx(pooled_frame(frames).failed.mean())


def test_trees_see_only_what_means_the_same_everywhere(fitted: FittedGlobal) -> None:
    trees = fitted.estimator.trees
    assert trees is not None
    used = {int(name[1:]) for name in trees.get_booster().get_score(importance_type="weight")}
    allowed = {INDEX[column.name] for column in TRANSFERABLE} | {len(COLUMNS)}  # and the decayed rate
    assert len(TRANSFERABLE) == 8 and INDEX["is_test_changed_v2"] in used and used <= allowed


def test_it_is_published_as_everybodys_and_promises_nothing(fitted: FittedGlobal) -> None:
    bundle = make_global_bundle(fitted)
    manifest = bundle.manifest
    assert (manifest.predictor, manifest.tenant_id) == ("test-failure", "")
    assert not manifest.HasField("selection_calibration")
    [chosen] = [candidate for candidate in manifest.candidates if candidate.chosen]
    assert chosen.candidate == manifest.algorithm == fitted.estimator.candidate.name
    inputs = pooled_frame(fitted.frames).inputs
    np.testing.assert_allclose(run_graph(bundle.graph, inputs), fitted.estimator.predict(inputs), atol=1e-4)
    again = make_global_bundle(fit_global(dict(reversed(fitted.frames.items())), quiet))
    assert again.manifest.SerializeToString(deterministic=True) == manifest.SerializeToString(deterministic=True)


def test_a_calibration_is_taken_over_only_where_it_helps_others(
    frames: dict[str, TestFrame], fitted: FittedGlobal
) -> None:
    losses = {
        name: np.mean([tenant[name] for tenant in figures(fitted)["held_out"].values()])  # type: ignore[attr-defined]
        for name in ("log_loss", "log_loss_calibrated_by_others")
    }
    assert losses["log_loss_calibrated_by_others"] < losses["log_loss"]
    assert make_global_bundle(fitted).manifest.probability_calibration.method == "beta"
    # Where the same tests fail each time, the base says too little; where a coin decides, too much.
    constant = fit_global({"same": frame_drawn(lambda _: np.arange(8) < 3), "coin": frame_drawn(coin)}, quiet)
    assert make_global_bundle(constant).manifest.probability_calibration.method == "none"


def coin(generator: np.random.Generator) -> NDArray[np.bool_]:
    return generator.random(8) < 0.5


def frame_drawn(draw: Callable[[np.random.Generator], NDArray[np.bool_]]) -> TestFrame:
    """Of runs whose outcomes are drawn."""
    generator = np.random.default_rng(7)
    runs = make_runs(runs=50, tests=8)
    return frame_of_runs([replace(run, outcomes=draw(generator).astype(np.float64)) for run in runs])


def test_one_tenant_alone_gives_the_base_as_it_is_and_none_gives_nothing(frames: dict[str, TestFrame]) -> None:
    alone = fit_global({"a": frames["a"], "small": frames["small"]}, quiet)
    assert alone.estimator.candidate == BASE and not alone.held_out
    manifest = make_global_bundle(alone).manifest
    assert [candidate.candidate for candidate in manifest.candidates if candidate.chosen] == [BASE.name]
    assert manifest.probability_calibration.method == "none" and manifest.probability_calibration.row_count == 0
    with pytest.raises(TooLittleHistory, match="no tenant"):
        fit_global({"small": frames["small"]}, quiet)


def test_many_tenants_are_held_out_in_parts(frames: dict[str, TestFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "FOLDS", 2)
    steps: list[str] = []
    fitted = fit_global(frames, steps.append)
    assert set(fitted.held_out) == set(fitted.raw) == set(fitted.calibrated) == {"a", "b", "c"}
    assert sum("held out" in step for step in steps) == 2
