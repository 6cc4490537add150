"""Flaky tests and verdicts, as the domain tells of them from rows in a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from changes.graphs import linked
from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_features.changes.changed_file import Change, ChangedFile
from conductor_features.filling import position_key
from conductor_features.views import TEST_FLAKINESS, TEST_HISTORY, View
from conductor_features.writer import write_rows
from conductor_model_store import LoadedModel, ModelScope
from conductor_rpc.call import NO_DEADLINE
from conductor_rpc.exceptions import InvalidRequest, NoPrediction
from conductor_server.prediction.answers import Method
from conductor_server.testing.answers import Classified, FlakyPage, FlakyStatus, Impact, NextStep, Verdict
from conductor_server.testing.questions import TEST_FLAKINESS as PREDICTOR
from conductor_server.testing.questions import ChangeTold, Failure, TestRun
from conductor_training import bundles
from conductor_training.test_failure.columns import COLUMNS
from conductor_training.test_failure.flaky import PROBABILITY, FlakyEstimator
from conductor_training.test_failure.trees import INPUT_NAME
from server.intelligence_scene import filled, serving, trained, write_graph
from server.test_testing_answers import SHOP

REPOSITORY = "acme/shop"
DAY = 86_400.0
NOW = float(int(time.time()))
"""The domain's clock is the machine's."""
ACTIVE, QUARANTINED, FIXED = FlakyStatus.ACTIVE, FlakyStatus.QUARANTINED, FlakyStatus.FIXED
ALL = (ACTIVE, QUARANTINED, FIXED)


def write(redis_url: str, view: View, test: str, at: float, **values: float) -> None:
    row = [values.get(name) for name in view.field_names]
    with filled(redis_url) as client:
        write_rows(client, view, [(("acme", REPOSITORY, test), datetime.fromtimestamp(at, UTC), row)])


def write_test(
    redis_url: str, test: str, *, failed: float, passed_since: int = 0, active: float | None = None,
    rerun_flips: int = 5, failures: int = 10, **flaky: float,
) -> None:  # fmt: skip
    """A test that failed last so many days ago; by default it became active then."""
    at = NOW - failed * DAY
    write(
        redis_url, TEST_HISTORY, test, NOW - 3600, run_count=100.0, failure_count=float(failures), skip_count=0.0,
        flip_count=rerun_flips + 3.0, rerun_flip_count=float(rerun_flips), last_failed=float(passed_since == 0),
        runs_since_failure=float(passed_since), last_failure_time=at, last_flip_time=at, last_run_time=NOW - 3600,
        flip_rate_20=0.25, failure_rate_10=0.5, failure_rate_2=0.1, failure_rate_50=0.1, mean_duration_10=2.0,
    )  # fmt: skip
    known = {"last_failure_time": at, "failed_runs_in_a_row": 3.0, **flaky}
    if active is not None:
        since = NOW - active * DAY
        known = {"active_time": since, "last_active_failure_time": at, "activation_count": 1.0, **known}
    write(redis_url, TEST_FLAKINESS, test, at, **known)


def ago(days: float) -> float:
    return NOW - days * DAY


@pytest.fixture
def known(redis_url: str) -> Iterator[str]:
    """A repository with tests in every state."""
    write_test(redis_url, "often", failed=1, passed_since=3, active=50, rerun_flips=9)
    write_test(redis_url, "seldom", failed=2, passed_since=3, active=40, rerun_flips=2)
    write_test(redis_url, "alike", failed=2, passed_since=3, active=40, rerun_flips=2)
    write_test(redis_url, "few-results", failed=20, passed_since=19, active=40, rerun_flips=1)
    write_test(redis_url, "few-days", failed=13.9, passed_since=500, active=40, rerun_flips=1)
    write_test(redis_url, "fixed", failed=15, passed_since=20, active=40)
    write_test(
        redis_url, "broken-later", failed=1, passed_since=0, last_active_failure_time=ago(60), active_time=ago(70)
    )
    write_test(redis_url, "quarantined", failed=15, passed_since=50, active=40, quarantined_time=ago(30))
    write_test(
        redis_url, "released", failed=2, passed_since=1, active=40, quarantined_time=ago(30), released_time=ago(20)
    )
    write_test(redis_url, "once-failed", failed=1)
    with filled(redis_url) as client:
        never_ran = [None] * len(TEST_FLAKINESS.fields)
        never_ran[TEST_FLAKINESS.field_index["quarantined_time"]] = ago(5)  # type: ignore[call-overload]
        write_rows(
            client,
            TEST_FLAKINESS,
            [(("acme", REPOSITORY, "never-ran"), datetime.fromtimestamp(ago(5), UTC), never_ran)],
        )
    yield redis_url


async def listed(
    redis_url: str, states: Any = ALL, count: int = 100, after: str = "", *models: LoadedModel
) -> FlakyPage:
    async with serving(redis_url, *models) as scene:
        return await scene.flakiness.list("acme", REPOSITORY, states, count, after, NO_DEADLINE)


def flaky_model() -> LoadedModel:
    """A real graph, of weights that make tests with flips flaky."""
    inputs = trained().frame.inputs
    graph = FlakyEstimator((0.1, 0.1, 3.0, 0.5, 2.0), -1.0).export().SerializeToString(deterministic=True)
    golden = bundles.golden_requests(inputs, bundles.run(graph, INPUT_NAME, [PROBABILITY], inputs))
    manifest = ModelManifest(
        predictor=PREDICTOR,
        tenant_id="acme",
        graph=bundles.blob(graph),
        inputs=bundles.input_columns(COLUMNS, inputs),
        input_name=INPUT_NAME,
        probability={"probability": PROBABILITY},
        golden_requests=golden,
    )
    digest = bundles.blob(manifest.SerializeToString(deterministic=True)).digest
    return LoadedModel(ModelScope(PREDICTOR, "acme"), digest[:16], digest, manifest, graph)


async def test_states_and_order(known: str) -> None:
    page = await listed(known)
    told = [(one.test_id, one.status) for one in page.tests]
    assert told == [
        ("often", ACTIVE),
        ("released", ACTIVE),
        ("alike", ACTIVE),
        ("seldom", ACTIVE),
        ("few-days", ACTIVE),
        ("few-results", ACTIVE),
        ("never-ran", QUARANTINED),
        ("quarantined", QUARANTINED),
        ("broken-later", FIXED),
        ("fixed", FIXED),
    ]
    assert page.total_count == 10 and page.next_after == ""
    assert page.origin.method is Method.HISTORY
    probability = {one.test_id: one.probability for one in page.tests}
    # (flips within runs + 2 × 0.5) of (failures + 2)
    assert probability["often"] == pytest.approx(10 / 12) and probability["never-ran"] == pytest.approx(0.5)


async def test_histories_of_states(known: str) -> None:
    told = {
        one.test_id: [(state, round((NOW - at) / DAY, 3)) for state, at in one.history]
        for one in (await listed(known)).tests
    }
    assert told["often"] == [(ACTIVE, 50)]
    assert told["fixed"] == [(ACTIVE, 40), (FIXED, 1)]
    assert told["broken-later"] == [(ACTIVE, 70), (FIXED, 46)]
    # What came about within quarantine is not told while that lasts, and is so from its end.
    assert told["quarantined"] == [(ACTIVE, 40), (QUARANTINED, 30)]
    assert told["released"] == [(QUARANTINED, 30), (ACTIVE, 20)]
    assert told["never-ran"] == [(QUARANTINED, 5)]


async def test_evidence_of_a_flaky_test(known: str) -> None:
    facts = {one.test_id: one.facts for one in (await listed(known)).tests}
    often = facts["often"]
    assert (often.run_count, often.failure_count, often.flip_count, often.rerun_flip_count) == (100, 10, 12, 9)
    assert (often.flip_rate, often.outcome_entropy, often.runs_since_flip) == (0.25, 1.0, 2)
    assert facts["broken-later"].runs_since_flip == 2  # three failed runs in a row
    assert facts["never-ran"].run_count == 0 and facts["never-ran"].last_flip_seconds is None


async def test_pages_hold_each_test_once(known: str) -> None:
    whole = [one.test_id for one in (await listed(known)).tests]
    for size in (1, 3, 9, 10):
        found: list[str] = []
        after, pages = "", 0
        while True:
            page = await listed(known, ALL, size, after)
            found += [one.test_id for one in page.tests]
            pages += 1
            if not (after := page.next_after):
                break
        assert found == whole and pages == -(-len(whole) // size)


@pytest.mark.parametrize("after", ["x", "1 x y", "x 0.5 y", f"{'9' * 5_000} 0.5 y"])
async def test_a_place_that_somebody_made_up_is_refused(known: str, after: str) -> None:
    """A token's checksum is no secret."""
    with pytest.raises(InvalidRequest, match="page_token"):
        await listed(known, after=after)


async def test_only_the_states_that_are_asked_for(known: str) -> None:
    page = await listed(known, (QUARANTINED,))
    assert [one.test_id for one in page.tests] == ["never-ran", "quarantined"] and page.total_count == 2


async def test_a_model_tells_the_probabilities(known: str) -> None:
    page = await listed(known, ALL, 100, "", flaky_model())
    assert page.origin.method is Method.MODEL and page.origin.model.name
    assert [one.test_id for one in page.tests][:2] == ["often", "released"]


async def test_a_repository_without_flaky_tests(known: str) -> None:
    async with serving(known) as scene:
        page = await scene.flakiness.list("acme", "other", ALL, 10, "", NO_DEADLINE)
        assert page.tests == [] and page.total_count == 0
        other = await scene.flakiness.list("globex", REPOSITORY, ALL, 10, "", NO_DEADLINE)
        assert other.tests == []


async def test_what_can_not_be_read_is_not_told_as_none(redis_url: str) -> None:
    with filled(redis_url) as client:
        client.delete(position_key(TEST_FLAKINESS.key))
    with pytest.raises(NoPrediction):
        await listed(redis_url)


def failure(test: str, message: str = "", run: Mapping[str, Any] | None = None, **told: Any) -> Failure:
    known = dict.fromkeys(
        ("attempt_count", "passed_attempt_count", "failed_test_count", "executed_test_count", "seconds")
    )
    at = TestRun("acme", REPOSITORY, round(NOW * 1e6), past_only=False, test_ids=(test,))
    return Failure(replace(at, **(run or {})), message, **{**known, **told})


async def test_a_failure_of_a_flaky_test(known: str) -> None:
    async with serving(known) as scene:
        found = await scene.flakiness.classify(failure("often"), NO_DEADLINE)
        assert found.verdict is Verdict.FLAKY and found.next_step is NextStep.RERUN_TEST
        assert found.flaky == pytest.approx(10 / 12 / 1.02)
        assert found.evidence[0].startswith("By its history, a failure of this test is flaky with probability 83%")
        assert any(says.startswith("It is active since ") for says in found.evidence)
        assert found.facts is not None and found.facts.rerun_flip_count == 9
        again = await scene.flakiness.classify(failure("often", attempt_count=2, passed_attempt_count=1), NO_DEADLINE)
        assert again.real == 0.0 and again.next_step is NextStep.QUARANTINE
        assert "passed-again" in again.evidence[0]


async def test_a_failure_that_began_before(known: str) -> None:
    async with serving(known) as scene:
        found = await scene.flakiness.classify(failure("broken-later", attempt_count=4), NO_DEADLINE)
    assert found.verdict is Verdict.REAL and found.next_step is NextStep.BISECT
    assert "It failed in the last 3 runs too." in found.evidence


async def test_a_failure_of_which_nothing_is_known(redis_url: str) -> None:
    filled(redis_url).close()
    async with serving(redis_url) as scene:
        found = await scene.flakiness.classify(failure("new"), NO_DEADLINE)
        assert (found.verdict, found.next_step, found.facts) == (Verdict.UNKNOWN, NextStep.RERUN_TEST, None)
        assert found.origin.method is Method.DEFAULT and found.basis.never_run_count == 1
        disk = await scene.flakiness.classify(failure("new", "No space left on device"), NO_DEADLINE)
    assert (disk.verdict, disk.next_step) == (Verdict.INFRASTRUCTURE, NextStep.RERUN_JOB)


async def test_the_change_that_reaches_the_test(known: str) -> None:
    write_graph(known, linked(SHOP).graph)
    run = {"told": ChangeTold.FILES, "files": (ChangedFile("shop/tax.py", "shop/tax.py", Change.MODIFIED),)}

    async def told(test: str) -> Classified:
        while True:
            found = await scene.flakiness.classify(failure(test, attempt_count=4, run=run), NO_DEADLINE)
            if found.basis.impact is not Impact.LOADING:
                return found

    async with serving(known) as scene:
        reached = await told("tests/test_total.py::test_total")
        other = await told("tests/test_other.py::test_other")
    assert reached.basis.impact is Impact.GRAPH and reached.next_step is NextStep.INSPECT_CHANGE
    assert "The change reaches it over 2 files." in reached.evidence
    assert other.next_step is NextStep.NONE
    assert "The change does not reach it, as far as the graph of the code tells." in other.evidence
