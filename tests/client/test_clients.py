"""Both clients against a real server: the same cases through each."""

import asyncio
import inspect
import math
import threading
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

import conductor_client
from client.conftest import PATIENCE_SECONDS, Conductor, Refusal, start, status
from conductor.build.v1 import build_context_pb2
from conductor.build.v1.build_context_pb2 import BuildContext, ChangeSet
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsResponse,
    BatchPredictBuildDurationsResult,
)
from conductor_client import (
    BuildTrigger,
    ConductorClient,
    ConductorError,
    ConnectionSettings,
    DeadlineExceeded,
    ErrorReason,
    InvalidRequest,
    Overloaded,
    PredictionMethod,
    SyncConductorClient,
    Unavailable,
)

BUILD = {"repository": "octocat/hello", "pipeline": "ci"}


async def test_a_prediction_is_typed(connect, conductor):
    async with connect() as client:
        prediction = await client.predict_build_duration("acme", **BUILD)
    assert prediction.median == timedelta(seconds=320)
    assert (prediction.lower, prediction.upper) == (timedelta(seconds=290), timedelta(seconds=400))
    assert (prediction.coverage, prediction.method) == (0.9, PredictionMethod.MODEL)
    assert prediction.model_name == "models/build-duration/tenants/acme"
    assert prediction.oldest_feature_age == timedelta(seconds=12)
    assert prediction.prediction_time == datetime.fromtimestamp(1_700_000_000, UTC)
    first, second = prediction.contributions
    assert (first.feature, first.value, first.effect) == (
        "branch_builds_v1.last_duration",
        310.0,
        timedelta(seconds=35),
    )
    assert (second.value, second.effect) == (None, timedelta(seconds=-4))
    assert conductor.requests[0].build == BuildContext(**BUILD)
    assert not conductor.requests[0].HasField("contribution_count")


async def test_what_a_later_server_adds_does_no_harm(connect, conductor):
    conductor.response.provenance.method = 99
    conductor.response.provenance.ClearField("oldest_feature_age")
    async with connect() as client:
        prediction = await client.predict_build_duration("acme", **BUILD)
    assert prediction.method is PredictionMethod.UNSPECIFIED
    assert prediction.oldest_feature_age is None


async def test_fields_and_message_say_the_same(connect, conductor):
    moment = datetime(2026, 5, 1, 12, tzinfo=UTC)
    change = ChangeSet(added_line_count=3)
    async with connect() as client:
        await client.predict_build_duration(
            "acme", branch="main", trigger="pull-request", queued_time=moment, change=change, **BUILD
        )
        sent = conductor.requests[0]
        await client.predict_build_duration("acme", sent.build, contribution_count=0)
        with pytest.raises(TypeError, match="both"):
            await client.predict_build_duration("acme", sent.build, branch="x")
        with pytest.raises(TypeError, match="repository and pipeline"):
            await client.predict_build_duration("acme")
        with pytest.raises(TypeError, match="time zone"):
            await client.predict_build_duration("acme", queued_time=datetime(2026, 5, 1), **BUILD)  # noqa: DTZ001
        with pytest.raises(ValueError, match="pull_request"):
            await client.predict_build_duration("acme", trigger="cosmic ray", **BUILD)
    assert sent.build.trigger == build_context_pb2.BUILD_TRIGGER_PULL_REQUEST
    assert sent.build.queued_time.ToDatetime(tzinfo=UTC) == moment
    assert conductor.requests[1].build == sent.build
    assert conductor.requests[1].contribution_count == 0
    assert conductor.requests[1].HasField("contribution_count")
    assert len(conductor.requests) == 2


async def test_how_critical_its_calls_are_is_the_clients_to_say(connect, conductor):
    for criticality in (None, "batch"):
        async with connect(criticality=criticality) as client:
            await client.predict_build_duration("acme", **BUILD)
    assert [metadata.get("conductor-criticality") for metadata in conductor.metadata] == [None, "batch"]


async def test_unavailable_is_retried(connect, conductor):
    conductor.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 3
    async with connect() as client:
        assert (await client.predict_build_duration("acme", **BUILD)).prediction_id == "p1"
    assert len(conductor.requests) == 4


async def test_retries_end(connect, conductor):
    conductor.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 10
    async with connect(maximum_attempts=3) as client:
        with pytest.raises(Unavailable):
            await client.predict_build_duration("acme", **BUILD)
    assert len(conductor.requests) == 3


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT],
)
async def test_nothing_else_is_retried(connect, conductor, code):
    conductor.refusals = [Refusal(code)]
    async with connect() as client:
        with pytest.raises(ConductorError):
            await client.predict_build_duration("acme", **BUILD)
    assert len(conductor.requests) == 1


def pushback(seconds: float) -> Refusal:
    told = ("grpc-retry-pushback-ms", str(round(seconds * 1000)))
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing=(told,))


def retry_info(seconds: float) -> Refusal:
    info = RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, details=(info,))


@pytest.mark.parametrize("busy", [pushback, retry_info])
async def test_an_overloaded_server_is_asked_once_more_when_it_says_when(connect, conductor, busy):
    refusal = busy(0.1)
    conductor.refusals = [refusal]
    async with connect() as client:
        begin = time.monotonic()
        await client.predict_build_duration("acme", **BUILD)
        assert time.monotonic() - begin >= 0.1
        assert len(conductor.requests) == 2
        conductor.refusals = [refusal, refusal]
        with pytest.raises(Overloaded) as caught:
            await client.predict_build_duration("acme", **BUILD)
        assert caught.value.retry_delay == timedelta(seconds=0.1)
        assert len(conductor.requests) == 4
        conductor.refusals = [busy(PATIENCE_SECONDS + 1)]
        with pytest.raises(Overloaded):  # the wait doesn't fit into the budget: told at once
            await client.predict_build_duration("acme", **BUILD)
        assert len(conductor.requests) == 5


async def test_no_answer_in_time(connect, conductor):
    conductor.hang = threading.Event()
    async with connect(timeout_seconds=0.2) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.predict_build_duration("acme", **BUILD)
        assert 0.15 < time.monotonic() - begin < 9, "it hangs for 10 s"
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(DeadlineExceeded):
            await client.predict_build_duration("acme", timeout_seconds=0.0, **BUILD)


async def test_every_call_has_a_deadline(connect, conductor):
    async with connect(timeout_seconds=100) as client:
        await client.predict_build_duration("acme", **BUILD)
        await client.predict_build_duration("acme", timeout_seconds=30, **BUILD)
        await client.publish_events("acme", [])
        await client.publish_events("acme", [], timeout_seconds=math.inf)
    usual, own, publish, endless = conductor.times_left
    # The header that carries a deadline holds it rounded up by a few per cent.
    assert 90 < usual < 110
    assert 20 < own < 33
    assert 200 < publish < 330
    assert endless is None or endless > 1e6


async def test_a_server_that_is_not_there(connect):
    async with connect(target="localhost:1") as client:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.predict_build_duration("acme", **BUILD)


async def test_a_restarted_server_is_found_again(connect):
    servicer = Conductor()
    server = start(servicer)
    port = int(servicer.target.rpartition(":")[2])
    async with connect(target=servicer.target, timeout_seconds=5) as client:
        await client.predict_build_duration("acme", **BUILD)
        server.stop(1).wait(5)
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.predict_build_duration("acme", timeout_seconds=0.3, **BUILD)
        server = start(servicer, port=port)
        deadline = time.monotonic() + 30
        while True:
            try:
                await client.predict_build_duration("acme", **BUILD)
                break
            except Unavailable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
    server.stop(1).wait(5)


async def test_the_token_is_sent_and_asked_for_anew_each_time(connect, conductor):
    tokens = iter(["one", "two"])
    async with connect(token=lambda: next(tokens)) as client:
        await client.predict_build_duration("acme", **BUILD)
        await client.predict_build_duration("acme", **BUILD)
    async with connect(token="three") as client:
        await client.publish_events("acme", [])
    async with connect() as client:
        await client.predict_build_duration("acme", **BUILD)
    sent = [metadata.get("authorization") for metadata in conductor.metadata]
    assert sent == ["Bearer one", "Bearer two", "Bearer three", None]
    assert conductor.metadata[0]["user-agent"].startswith("conductor-client/")


async def test_a_batch_fails_item_by_item(connect, conductor):
    error = status(grpc.StatusCode.INVALID_ARGUMENT, "bad", ErrorInfo(reason="INVALID_FIELD", domain="conductor"))
    conductor.batch = lambda request: BatchPredictBuildDurationsResponse(
        results=[
            BatchPredictBuildDurationsResult(response=conductor.response),
            BatchPredictBuildDurationsResult(error=error),
        ]
    )
    async with connect() as client:
        good, bad = await client.batch_predict_build_durations(
            "acme", [BuildContext(**BUILD), {**BUILD, "trigger": BuildTrigger.PUSH}], contribution_count=2
        )
    assert good.median == timedelta(seconds=320)
    assert (type(bad), bad.reason, bad.code) == (
        InvalidRequest,
        ErrorReason.INVALID_FIELD,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    [request] = conductor.requests
    assert [item.contribution_count for item in request.requests] == [2, 2]
    assert request.requests[1].build.trigger == build_context_pb2.BUILD_TRIGGER_PUSH


async def test_a_message_too_large_does_not_leave(connect, conductor):
    async with connect() as client:
        with pytest.raises(ConductorError) as caught:
            await client.predict_build_duration("acme", repository="x" * 10_000_000, pipeline="ci")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not conductor.requests


async def test_a_cancelled_call_is_cancelled(conductor):
    conductor.hang = threading.Event()
    async with ConductorClient.connect(conductor.target, insecure=True, timeout_seconds=10) as client:
        task = asyncio.create_task(client.predict_build_duration("acme", **BUILD))
        await asyncio.to_thread(conductor.received.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_calls_take_turns_between_servers(connect):
    servicers = [Conductor(), Conductor()]
    servers = [start(servicer) for servicer in servicers]
    ports = [servicer.target.rpartition(":")[2] for servicer in servicers]
    async with connect(target="ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)) as client:
        deadline = time.monotonic() + 30
        while not all(servicer.requests for servicer in servicers):  # until it has a connection to each
            await client.predict_build_duration("acme", **BUILD)
            assert time.monotonic() < deadline
        for servicer in servicers:
            servicer.requests.clear()
        for _ in range(40):
            await client.predict_build_duration("acme", **BUILD)
    assert all(len(servicer.requests) >= 10 for servicer in servicers)
    for server in servers:
        server.stop(1).wait(5)


@pytest.mark.parametrize("kind", [ConductorClient, SyncConductorClient])
def test_both_connect_alike_and_offer_the_same(kind):
    assert inspect.signature(kind.connect).parameters["timeout_seconds"].default == 1
    assert ConnectionSettings("localhost:1").timeout_seconds == 1
    public = {name for name in dir(kind) if not name.startswith("_")}
    public.discard("build_duration_stream")  # of the async one: many threads that wait would gain little by a stream
    assert public == {
        "batch_predict_build_durations",
        "classify_failure",
        "list_flaky_tests",
        "predict_test_failures",
        "prioritize_tests",
        "select_tests",
        "close",
        "connect",
        "predict_build_duration",
        "publish_events",
    }


def test_the_package_offers_what_it_names():
    for name in conductor_client.__all__:
        assert getattr(conductor_client, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = conductor_client.nonsense
