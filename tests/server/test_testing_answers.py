"""Probabilities of tests as training would give them, and what an answer tells of where it comes from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import redis
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from changes.graphs import linked
from conductor_features.changes.changed_file import Change, ChangedFile
from conductor_features.changes.graph_codec import graph_keys
from conductor_features.keys import entity_key
from conductor_features.views import PATH_CHANGES, TEST_HISTORY
from conductor_model_store import CANARY, Pointer
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.exceptions import DeadlineTooShort, NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.served_model import ServedModel
from conductor_server.models.sessions import ModelRefused
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.prediction.answers import Fallback, Method, Variant
from conductor_server.prediction.ports import ModelFailed
from conductor_server.testing.answers import Impact, Reason
from conductor_server.testing.questions import ChangeTold
from conductor_training.test_failure import scores
from conductor_training.test_failure.arithmetic import InNumpy
from conductor_training.test_failure.columns import INDEX
from conductor_training.test_failure.frame import Run, _Past
from server.harness import graph, manifest
from server.intelligence_scene import (
    OVERALL,
    REPOSITORY,
    answered,
    model,
    run_at,
    serving,
    trained,
    write_graph,
    write_past,
)

SHOP = {
    "shop/tax.py": "def rate():\n    return 1\n",
    "shop/total.py": "from shop import tax\n\ndef total():\n    return tax.rate()\n",
    "tests/test_total.py": "from shop import total\n\ndef test_total():\n    assert total.total()\n",
    "tests/test_other.py": "def test_other():\n    pass\n",
}


def changed(paths: Sequence[str]) -> list[ChangedFile]:
    return [ChangedFile(path, path, Change.MODIFIED) for path in paths]


def touching() -> tuple[list[Run], Run]:
    """The runs before, and one whose change touches files."""
    runs = list(trained().runs)
    at = max(number for number, run in enumerate(runs) if len(run.changed_paths) > 1)
    return runs[:at], runs[at]


def past_of(runs: Sequence[Run]) -> _Past:
    """What training would know after them."""
    past = _Past()
    for run in runs:
        past.add(run)
    return past


def estimated(before: Sequence[Run], tests: Sequence[str], at: float, paths: Sequence[str] = ()) -> np.ndarray:
    """What training's estimator says, from what it would know."""
    return trained().estimator.predict(past_of(before).inputs(tests, at, paths, REPOSITORY))


@pytest.mark.parametrize("told", [ChangeTold.FILES, ChangeTold.NOTHING])
async def test_probabilities_are_those_of_training(redis_url: str, told: ChangeTold) -> None:
    before, run = touching()
    # How often a test failed with a path counts however long ago; and not all tests that did are candidates.
    write_past(redis_url, before, pairs_age=timedelta(days=400))
    paths = run.changed_paths if told is ChangeTold.FILES else ()
    ids = [*reversed(run.tests[4:]), "never/seen"]
    async with serving(redis_url, model(trained())) as server:
        asked = run_at(run.started, test_ids=ids, told=told, files=changed(paths))
        answer = await server.intelligence.predict(asked, 3, NO_DEADLINE)
    expected = estimated(before, ids, run.started, paths)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
    assert np.ptp(expected) > 0.05
    assert list(answer.test_ids) == ids
    assert (answer.origin.method, answer.origin.fallback) == (Method.MODEL, Fallback.NONE)
    assert answer.origin.model.digest == model(trained()).manifest.graph.digest
    assert answer.basis.never_run_count == 1 and answer.basis.unreadable_count == 0
    assert answer.basis.impact is (Impact.NO_GRAPH if told is ChangeTold.FILES else Impact.NOT_ASKED)
    assert answer.oldest_age_seconds == run.started - before[-1].completed
    assert answer.reasons[-1] == Reason.NEVER_RAN
    last = before[-1].outcomes[:3:-1] == 1
    assert set(answer.reasons[:-1][last]) <= {Reason.FAILED_LAST, Reason.FLAKY}
    assert Reason.FAILED_LAST not in answer.reasons[:-1][~last]
    likeliest = np.argsort(-answer.probabilities, kind="stable")[:3].tolist()
    assert [told.index for told in answer.explanations] == likeliest


async def test_a_model_of_before_is_told_what_it_was_trained_on(redis_url: str) -> None:
    """Its manifest names the column whose definition was another: a test was changed if its id was the path."""
    before, run = touching()
    ids = [f"{test}::case" for test in run.tests]
    before = [replace(one, tests=ids) for one in before]
    write_past(redis_url, before)
    new, old = model(trained()), model(trained())
    at = INDEX["is_test_changed_v2"]
    old.manifest.inputs[at].name = old.manifest.inputs[at].request_column = "is_test_changed"
    inputs = past_of(before).inputs(ids, run.started, run.changed_paths, REPOSITORY)
    assert inputs[:, at].sum() == len(run.changed_paths) > 0
    said = []
    for one in (new, old):
        async with serving(redis_url, one) as server:
            asked = run_at(run.started, test_ids=ids, told=ChangeTold.FILES, files=changed(run.changed_paths))
            said.append((await server.intelligence.predict(asked, 0, NO_DEADLINE)).probabilities)
        np.testing.assert_allclose(said[-1], trained().estimator.predict(inputs), atol=1e-4)
        inputs[:, at] = 0.0
    assert np.abs(said[0] - said[1]).max() > 0.01


async def test_contributions_are_what_the_probability_would_be_otherwise(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    async with serving(redis_url, model(trained())) as server:
        asked = run_at(run.started, test_ids=run.tests, told=ChangeTold.FILES, files=changed(run.changed_paths))
        answer = await server.intelligence.predict(asked, 2, NO_DEADLINE)
        none = await server.intelligence.predict(asked, 0, NO_DEADLINE)
    assert none.explanations == []
    inputs = past_of(before).inputs(run.tests, run.started, run.changed_paths, REPOSITORY)
    columns = model(trained()).manifest.inputs
    for told in answer.explanations:
        assert 0 < len(told.contributions) <= 5
        sizes = [abs(one.effect) for one in told.contributions]
        assert sizes == sorted(sizes, reverse=True)
        for name, value, effect in told.contributions:
            [at] = [at for at, column in enumerate(columns) if column.name == name]
            other = inputs[[told.index]]
            np.testing.assert_allclose(value, other[0, at], rtol=1e-6)
            was = trained().estimator.predict(other)[0]
            other[0, at] = columns[at].typical_value
            assert effect == pytest.approx(was - trained().estimator.predict(other)[0], abs=2e-4)


async def test_the_order_is_by_probability_for_the_time(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    ids = [*run.tests, "never/seen"]
    async with serving(redis_url, model(trained())) as server:
        answer = await server.intelligence.order(run_at(run.started, test_ids=ids), NO_DEADLINE)
        new = await server.intelligence.order(run_at(run.started, test_ids=["never/seen", "nor/this"]), NO_DEADLINE)
    past = past_of(before)
    rows = past.tests.rows(past.tests.find(run.tests), run.started)
    seconds = rows[:, TEST_HISTORY.field_index["mean_duration_10"]]
    np.testing.assert_allclose(answer.times.expected, [*seconds, np.median(seconds)])
    assert answer.times.unknown_count == 1
    worth = answer.predicted.probabilities / (answer.times.expected + 0.01)
    assert sorted(answer.order) == list(range(21)) and (np.diff(worth[answer.order]) <= 0).all()
    assert answer.order.tolist() != np.argsort(-answer.predicted.probabilities).tolist()
    assert (new.times.expected.tolist(), new.times.unknown_count) == ([1.0, 1.0], 2)


async def test_without_a_model_history_answers(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    async with serving(redis_url) as server:
        asked = run_at(run.started, test_ids=[*run.tests, "never/seen"])
        answer = await server.intelligence.predict(asked, 1, NO_DEADLINE)
        with pytest.raises(NoPrediction):
            await server.intelligence.predict(run_at(run.started, test_ids=["never/seen"]), 1, NO_DEADLINE)
    past = past_of(before)
    outcomes = np.concatenate([one.outcomes for one in before])
    unknown = (outcomes.sum() + 1) / (len(outcomes) + 2)
    expected = scores.history(InNumpy(past.inputs(asked.test_ids, run.started, (), REPOSITORY)), unknown)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
    assert (answer.origin.method, answer.origin.fallback) == (Method.HISTORY, Fallback.NONE)
    assert answer.explanations[0].contributions == []


async def test_a_model_that_fails_is_replaced_by_history(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, run = touching()
    write_past(redis_url, before)

    def fail(*_: object) -> None:
        raise ModelFailed("no")

    async with serving(redis_url, model(trained())) as server:
        asked = run_at(run.started, test_ids=run.tests)
        for broken in (fail, lambda _, inputs: np.full((len(inputs), 1), np.nan)):
            monkeypatch.setattr(ServedModel, "score", broken)
            answer = await server.intelligence.predict(asked, 1, NO_DEADLINE)
            assert (answer.origin.method, answer.origin.fallback) == (Method.HISTORY, Fallback.MODEL_FAILED)
            assert ((answer.probabilities > 0) & (answer.probabilities < 1)).all()


async def test_rows_that_cannot_be_read_are_told(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    key = entity_key(TEST_HISTORY.key, ("acme", REPOSITORY, run.tests[3]))
    with redis.Redis.from_url(redis_url) as client:
        value = bytearray(client.get(key))
        value[-1] ^= 1
        client.set(key, bytes(value))
    async with serving(redis_url, model(trained())) as server:
        answer = await server.intelligence.predict(run_at(run.started, test_ids=run.tests), 1, NO_DEADLINE)
    assert np.flatnonzero(answer.reasons == Reason.HISTORY_UNREADABLE).tolist() == [3]
    assert (answer.basis.unreadable_count, answer.basis.never_run_count) == (1, 0)
    assert answer.origin.method is Method.MODEL_DEGRADED
    assert "test_history_v2.run_count" in answer.origin.missing_features
    expected = estimated(before, ["never/seen"], run.started)
    np.testing.assert_allclose(answer.probabilities[3], expected[0], atol=1e-4)


async def test_what_can_not_be_read_of_the_change_is_told(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    path = run.changed_paths[0]
    with redis.Redis.from_url(redis_url) as client:
        client.set(entity_key(PATH_CHANGES.key, ("acme", REPOSITORY, path)), b"no row")
    async with serving(redis_url, model(trained())) as server:
        asked = run_at(run.started, test_ids=run.tests, told=ChangeTold.FILES, files=changed([path]))
        answer = await server.intelligence.predict(asked, 0, NO_DEADLINE)
    assert answer.origin.method is Method.MODEL_DEGRADED
    assert answer.origin.missing_features == ("path_changes_v1.change_count", "path_changes_v1.failed_run_rate_10")
    assert answer.basis.unreadable_count == 0


async def test_rows_of_later_are_not_used_where_the_caller_names_the_time(redis_url: str) -> None:
    before, _ = touching()
    write_past(redis_url, before)
    end, ids = before[-1].completed, before[-1].tests
    async with serving(redis_url, model(trained())) as server:
        at_end = await server.intelligence.predict(run_at(end, test_ids=ids), 1, NO_DEADLINE)
        now = await server.intelligence.predict(run_at(end, test_ids=ids, past_only=False), 1, NO_DEADLINE)
        old = await server.intelligence.predict(run_at(end + 366 * 86_400, test_ids=ids), 1, NO_DEADLINE)
    assert at_end.basis.unreadable_count == len(ids)
    assert at_end.origin.method is Method.DEFAULT
    assert now.origin.method is Method.MODEL and now.basis.unreadable_count == 0
    assert old.origin.method is Method.MODEL and old.basis.never_run_count == len(ids)
    assert old.oldest_age_seconds is None


async def test_without_the_store_the_overall_rate_answers(redis_url: str) -> None:
    _, run = touching()
    async with serving("redis://127.0.0.1:1/0", model(trained())) as server:
        asked = run_at(run.started, test_ids=run.tests, told=ChangeTold.FILES, files=changed(["a"]))
        answer = await server.intelligence.predict(asked, 1, NO_DEADLINE)
        with pytest.raises(NoPrediction):
            await server.intelligence.predict(replace(asked, test_ids=()), 1, NO_DEADLINE)
    assert (answer.origin.method, answer.origin.fallback) == (Method.DEFAULT, Fallback.MODEL_FAILED)
    assert answer.origin.model.name
    assert set(answer.probabilities) == {OVERALL}
    assert answer.basis.unreadable_count == len(run.tests)
    lacks = {"test_history_v2.run_count", "path_changes_v1.change_count", "test_path_affinity_v1.failure_count"}
    assert lacks <= set(answer.origin.missing_features)
    assert answer.basis.impact is Impact.UNAVAILABLE
    async with serving("redis://127.0.0.1:1/0") as server:
        with pytest.raises(NoPrediction):
            await server.intelligence.predict(asked, 1, NO_DEADLINE)


async def test_all_known_tests_are_those_of_the_list(redis_url: str) -> None:
    shift = time.time() - trained().runs[-1].completed - 60
    runs = [replace(run, started=run.started + shift, completed=run.completed + shift) for run in trained().runs]
    write_past(redis_url, runs)
    async with serving(redis_url, model(trained())) as server:
        answer = await server.intelligence.predict(run_at(time.time()), 0, NO_DEADLINE)
        with pytest.raises(NoPrediction):
            await server.intelligence.predict(run_at(time.time(), repository="un/known"), 0, NO_DEADLINE)
    assert list(answer.test_ids) == sorted(runs[0].tests)
    assert answer.origin.method is Method.MODEL


async def test_the_graph_tells_what_a_change_reaches(redis_url: str) -> None:
    write_past(redis_url, touching()[0])
    ids = ["tests/test_total.py::test_total", "tests/test_other.py::test_other"]
    files = changed(["shop/tax.py", "pyproject.toml"])
    asked = run_at(touching()[1].started, test_ids=ids, told=ChangeTold.FILES, files=files)

    async with serving(redis_url, model(trained())) as server:
        await answered(server, asked, Impact.NO_GRAPH)
        write_graph(redis_url, replace(linked(SHOP).graph, commit="c0ffee"))
        answer = await answered(server, asked, Impact.GRAPH)
    assert answer.basis.graph_commit_sha == "c0ffee"
    assert answer.basis.unplaced_paths == ["pyproject.toml"]
    ways = {told.index: told.impact for told in answer.explanations}
    assert ways[0] is not None and ways[1] is None
    assert ways[0].distance == 2
    assert ways[0].nodes == ["shop/tax.py:rate", "shop/total.py:total", "tests/test_total.py:test_total"]
    _, place = graph_keys(("acme", REPOSITORY), 1)
    with redis.Redis.from_url(redis_url) as client:
        client.set(place, client.get(place)[:-1])
    async with serving(redis_url, model(trained())) as server:
        await answered(server, asked, Impact.UNAVAILABLE)


async def test_reached_tests_are_told_where_nothing_else_speaks_for_failure(redis_url: str) -> None:
    _, run = touching()
    ids = ["tests/test_total.py::test_total", "tests/test_other.py::test_other"]
    calm = replace(run, tests=ids, outcomes=np.zeros(2), durations=np.ones(2), changed_paths=[])
    write_past(redis_url, [calm])
    write_graph(redis_url, linked(SHOP).graph)
    asked = run_at(run.completed + 60, test_ids=ids, told=ChangeTold.FILES, files=changed(["shop/tax.py"]))
    async with serving(redis_url, model(trained())) as server:
        answer = await answered(server, asked, Impact.GRAPH)
        assert answer.reasons.tolist() == [Reason.REACHED, Reason.NONE]
        itself = replace(asked, files=changed(["tests/test_other.py"]))
        answer = await server.intelligence.predict(itself, 0, NO_DEADLINE)
        assert answer.reasons.tolist() == [Reason.NONE, Reason.TEST_CHANGED]


async def test_a_canary_is_labelled(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    own, canary = model(trained(), cycles=[]), model(trained())
    async with serving(redis_url, own) as server:
        pointer = Pointer(own.scope, CANARY, 1, canary.version, "", datetime.now(UTC), "publish", weight=1.0)
        server.registry.set_variant((own.scope, CANARY), pointer)
        server.put(canary, CANARY)
        answer = await server.intelligence.predict(run_at(run.started, test_ids=run.tests), 0, NO_DEADLINE)
    assert answer.origin.variant is Variant.CANARY
    assert answer.origin.model.version == canary.version != own.version


async def test_nothing_is_begun_that_is_too_late(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    async with serving(redis_url, model(trained())) as server:
        with pytest.raises(DeadlineTooShort):
            await server.intelligence.predict(run_at(run.started, test_ids=run.tests), 0, Deadline.after(-1))


def test_models_take_views_of_their_own_subject_only() -> None:
    of_tests = model(trained()).manifest
    of_tests.inputs[0].feature.view, of_tests.inputs[0].feature.field = "pipeline_builds_v1", "median_duration_7"
    of_builds = manifest(graph(1.0))
    of_builds.inputs[0].feature.view, of_builds.inputs[0].feature.field = TEST_HISTORY.key, "run_count"
    for refused in (of_tests, of_builds):
        with pytest.raises(ModelRefused, match="is not known"):
            SharedParts().plan(refused)


async def test_answers_are_counted_by_method(redis_url: str) -> None:
    before, run = touching()
    write_past(redis_url, before)
    reader = InMemoryMetricReader()
    telemetry = Telemetry(None, MeterProvider([reader]))
    async with serving(redis_url, model(trained()), telemetry=telemetry) as server:
        await server.intelligence.predict(run_at(run.started, test_ids=[*run.tests, "never/seen"]), 0, NO_DEADLINE)
        points = {
            (metric.name, *sorted(point.attributes.values())): point
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
    assert points[names.PREDICTIONS, "model", "test-failure"].value == 21
    assert points[names.INPUT_ROWS, "test-failure"].value == 21
    assert points[names.INPUT_MISSING, "test-failure", "test_history_v2.run_count"].value == 1
    assert all((names.STAGE_DURATION, stage) in points for stage in (names.FEATURES_READ, names.MODEL_RUN))
