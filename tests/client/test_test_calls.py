"""Questions about tests, by both clients against a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from client.conftest import Refusal
from client.testing_answers import IDS, ROUNDED_UP, TestAnswers, serving
from conductor_client import (
    ChangedFile,
    ConductorClient,
    ConnectionSettings,
    FailureReason,
    FailureVerdict,
    FlakyState,
    ImpactBasis,
    InternalError,
    InvalidRequest,
    NextStep,
    PredictionMethod,
    PromiseBasis,
    SelectionReason,
    SyncConductorClient,
    Unavailable,
)

MOMENT = datetime.fromtimestamp(1_700_000_000, UTC)


@pytest.fixture
def conductor() -> Iterator[TestAnswers]:
    with serving() as servicer:
        yield servicer


async def each(values: Any) -> list[Any]:
    """All of an iterator, of either kind."""
    return [value async for value in values] if isinstance(values, AsyncIterator) else list(values)


class Either:
    """One face on both clients: what a method gives is awaited where it has to be."""

    def __init__(self, kind: Any, settings: ConnectionSettings) -> None:
        self._client = kind(settings)

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            found = getattr(self._client, name)(*arguments, **named)
            return await found if hasattr(found, "__await__") else found

        return call

    async def __aenter__(self) -> "Either":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@pytest.fixture(params=[ConductorClient, SyncConductorClient], ids=["async", "sync"])
def connect(request: pytest.FixtureRequest, conductor: TestAnswers) -> Any:
    return lambda **settings: Either(request.param, ConnectionSettings(conductor.target, insecure=True, **settings))


async def test_predictions_are_a_sequence(connect, conductor):
    async with connect() as client:
        found = await client.predict_test_failures(
            "acme", repository="r", test_ids=IDS, diff="diff", commit_sha="abc", explanation_count=2
        )
    assert len(found) == 3
    assert found[1] == (IDS[1], 0.5, FailureReason.UNSPECIFIED)  # a later server's reason
    assert [one.reason for one in found] == [FailureReason.FAILED_RECENTLY, 0, FailureReason.NEVER_RAN]
    assert [one.test_id for one in found[1:]] == IDS[1:]
    assert [one.test_id for one in found.likeliest(2)] == [IDS[1], IDS[0]]
    first, second = found.explanations
    assert (first.test_id, first.contributions[0], first.contributions[1].value) == (
        IDS[1],
        ("failure_rate", 0.5, 0.1),
        None,
    )
    assert first.impact == (2, ("src/a.py:f", "src/b.py", "t/test_b.py"))
    assert (second.test_id, second.contributions, second.impact) == (IDS[0], (), None)
    assert (found.basis.impact, found.basis.graph_commit_sha, found.basis.never_run_count) == (
        ImpactBasis.GRAPH,
        "abc",
        1,
    )
    origin = found.provenance
    assert (origin.method, origin.model_version, origin.oldest_feature_age, origin.prediction_time) == (
        PredictionMethod.MODEL,
        "0123456789abcdef",
        timedelta(seconds=12),
        MOMENT,
    )
    [request] = conductor.requests
    assert (request.tenant_id, request.explanation_count, request.run.diff) == ("acme", 2, b"diff")
    assert (request.run.repository, list(request.run.test_ids), request.run.commit_sha) == ("r", IDS, "abc")
    assert 8 < conductor.times_left[0] <= 10 * ROUNDED_UP


async def test_a_selection(connect, conductor):
    files = ["a.py", ChangedFile("b.py", "old.py", "renamed", 3, 0)]
    async with connect() as client:
        found = await client.select_tests(
            "acme",
            repository="r",
            changed_files=files,
            miss_rate=0.05,
            must_run=["smoke/*"],
            must_run_distance=0,
            audit_share=0.0,
            start_time=MOMENT,
        )
        await client.select_tests("acme", repository="r", time_share=0.25)
        for goal in ({}, {"miss_rate": 0.1, "time_share": 0.5}):
            with pytest.raises(TypeError, match="one goal"):
                await client.select_tests("acme", repository="r", **goal)
    assert found.selected_ids == [IDS[2], IDS[1]]
    assert list(found.chosen) == [
        (IDS[2], 0.0625, SelectionReason.NEVER_RAN),
        (IDS[1], 0.5, SelectionReason.LIKELY_ENOUGH),
    ]
    assert list(found.left_out) == [(IDS[0], 0.125, SelectionReason.UNLIKELY)]
    assert [one.test_id for one in found] == IDS
    assert (len(found), found.audit_share, found.expected_missed_failures) == (3, 0.02, 0.125)
    assert (found.selected_duration, found.total_duration) == (timedelta(seconds=90), timedelta(minutes=10))
    assert found.unknown_duration_count == 1
    promise = found.promise
    assert (promise.miss_rate, promise.level, promise.threshold, promise.calibration_run_count) == (
        0.05,
        0.04,
        0.125,
        250,
    )
    assert (promise.basis, promise.calibration_end) == (PromiseBasis.CALIBRATED, MOMENT)
    assert (promise.realised.miss_rate, promise.realised.run_count, promise.realised.end) == (0.03, 120, MOMENT)
    request, cheaper = conductor.requests
    assert (request.miss_rate, request.WhichOneof("goal"), list(request.must_run)) == (0.05, "miss_rate", ["smoke/*"])
    assert (request.HasField("must_run_distance"), request.HasField("audit_share")) == (True, True)
    assert (cheaper.time_share, cheaper.HasField("audit_share")) == (0.25, False)
    first, second = request.run.changed_files
    assert (first.path, first.kind, first.HasField("added_line_count")) == ("a.py", 0, False)
    assert (second.old_path, second.kind, second.added_line_count, second.HasField("deleted_line_count")) == (
        "old.py",
        4,
        3,
        True,
    )
    assert request.run.start_time.ToDatetime(tzinfo=UTC) == MOMENT


async def test_an_order_is_read_as_it_comes(connect, conductor):
    async with connect() as client:
        order = await client.prioritize_tests("acme", repository="r")
        assert (order.head.total_count, order.head.provenance.prediction_id) == (3, "p1")
        tests = await each(order.__aiter__() if hasattr(order, "__aiter__") else iter(order))
    assert [test.test_id for test in tests] == IDS
    assert tests[0] == (IDS[0], 0.5, timedelta(seconds=1.5))
    assert tests[2].expected_duration == timedelta(minutes=1)


async def test_who_leaves_an_order_ends_it(connect, conductor):
    """More of it than the connection takes while nobody reads."""
    part = conductor.order[1]
    part.test_ids[0] = "x" * 100_000
    conductor.order[1:] = [part] * 1_000
    async with connect() as client:
        order = await client.prioritize_tests("acme", repository="r")
        assert not conductor.order_ended.is_set()
        if hasattr(order, "__aenter__"):
            async with order:
                pass
        else:
            with order:
                pass
        assert await asyncio.to_thread(conductor.order_ended.wait, 5)


async def test_an_order_that_breaks_off_is_an_error(connect, conductor):
    conductor.refuse_after_first_part = Refusal(grpc.StatusCode.INTERNAL)
    async with connect() as client:
        order = await client.prioritize_tests("acme", repository="r")
        with pytest.raises(InternalError):
            await each(order.__aiter__() if hasattr(order, "__aiter__") else iter(order))


async def test_flaky_tests_of_all_pages(connect, conductor):
    async with connect() as client:
        found = await each(await client.list_flaky_tests("acme", "r", states=["fixed", FlakyState.ACTIVE], page_size=2))
        await each(await client.list_flaky_tests("acme", "r"))
        with pytest.raises(KeyError):
            await each(await client.list_flaky_tests("acme", "r", states=["broken"]))
    assert [test.test_id for test in found] == IDS
    test = found[0]
    assert (test.state, test.probability, test.evidence.flip_count) == (FlakyState.QUARANTINED, 0.75, 9)
    assert test.evidence.last_flip == MOMENT
    assert [one.state for one in test.history] == [FlakyState.ACTIVE, FlakyState.QUARANTINED]
    assert test.provenance.prediction_id == "p1"
    first, second, *others = conductor.requests
    assert (list(first.states), first.page_size, first.page_token, second.page_token) == ([3, 1], 2, "", "2")
    assert (list(others[0].states), others[0].page_size) == ([], 0)


async def test_a_failure_is_classified(connect, conductor):
    told = {"failure_message": "timed out", "attempt_count": 3, "passed_attempt_count": 0, "executed_test_count": 50}
    async with connect() as client:
        found = await client.classify_failure(
            "acme", "t", repository="r", diff=b"d", duration=timedelta(seconds=1.25), **told
        )
    assert (found.verdict, found.next_step) == (FailureVerdict.FLAKY, NextStep.RERUN_TEST)
    assert (found.real, found.flaky, found.infrastructure) == (0.25, 0.625, 0.125)
    assert found.evidence[0] == "it passed when it was tried again"
    assert found.history.runs_since_flip == 3
    [request] = conductor.requests
    assert (request.test_id, request.run.repository, request.run.diff) == ("t", "r", b"d")
    assert {name: getattr(request, name) for name in told} == told
    assert request.HasField("passed_attempt_count")
    assert not request.HasField("failed_test_count")
    assert request.duration.ToMilliseconds() == 1_250


@pytest.mark.parametrize(
    ("method", "arguments", "fields"),
    [
        ("predict_test_failures", ("acme",), {"repository": "r"}),
        ("select_tests", ("acme",), {"repository": "r", "miss_rate": 0.1}),
        ("prioritize_tests", ("acme",), {"repository": "r"}),
        ("classify_failure", ("acme", "t"), {"repository": "r"}),
    ],
)
async def test_every_method_tries_again_where_that_helps(connect, conductor, method, arguments, fields):
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(10)
    busy = Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, details=(ErrorInfo(reason="OVERLOADED", domain="conductor"), retry)
    )
    conductor.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 2 + [busy]
    async with connect() as client:
        await getattr(client, method)(*arguments, **fields)
        assert len(conductor.requests) == 4
        conductor.refusals = [Refusal(grpc.StatusCode.INVALID_ARGUMENT)]
        with pytest.raises(InvalidRequest):
            await getattr(client, method)(*arguments, **fields)
    assert len(conductor.requests) == 5


async def test_timeouts_are_the_callers(connect, conductor):
    conductor.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 10
    async with connect(tests_timeout_seconds=500, maximum_attempts=2) as client:
        with pytest.raises(Unavailable):
            await client.predict_test_failures("acme", repository="r")
        with pytest.raises(Unavailable):
            await client.predict_test_failures("acme", repository="r", timeout_seconds=200)
    assert [round(left / 100) for left in conductor.times_left] == [5, 5, 2, 2]


async def test_an_answer_may_be_longer_than_a_request(connect, conductor):
    conductor.prediction.test_ids[:] = [f"{number:06d}".ljust(500, "x") for number in range(10_000)]
    conductor.prediction.failure_probabilities[:] = [0.5] * 10_000
    conductor.prediction.reasons[:] = [0] * 10_000
    async with connect() as client:
        assert len(await client.predict_test_failures("acme", repository="r")) == 10_000
