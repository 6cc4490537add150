"""The async client's stream: shared by tasks, opened again when it breaks."""

# ruff: noqa: N802 - the contract's method names

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from client.conftest import PATIENCE_SECONDS, answer, status
from conductor.prediction.v1.build_duration_pb2 import StreamBuildDurationPredictionsResponse
from conductor.prediction.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from conductor_client import (
    ConductorClient,
    ConductorError,
    ConnectionSettings,
    DeadlineExceeded,
    ErrorReason,
    InternalError,
    InvalidRequest,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from rpc.harness import Authority, Keys, serving
from rpc.secured import secured

BUILD = {"repository": "octocat/hello", "pipeline": "ci"}
UNAVAILABLE, UNAUTHENTICATED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED


@dataclass
class Streams(PredictionServiceServicer):
    """Answers each item, unless told otherwise; a stream may end after a number of messages."""

    ends: list[tuple[int, grpc.StatusCode]] = field(default_factory=list)
    """How the first streams end: after so many messages, unanswered the last, and with what."""
    results: Callable[[Any], dict[str, Any] | None] = lambda _: {"response": answer()}
    """The result of an item; None for no answer at all."""
    messages: list[list[Any]] = field(default_factory=list)
    """Of every stream."""
    tokens: list[str] = field(default_factory=list)
    ended_well: int = 0
    target: str = ""

    async def PredictBuildDuration(self, request, context):
        return answer()

    async def StreamBuildDurationPredictions(self, requests, context):
        self.tokens.append(dict(context.invocation_metadata()).get("authorization", ""))
        messages: list[Any] = []
        self.messages.append(messages)
        after, code = self.ends.pop(0) if self.ends else (None, None)
        if after == 0:
            await context.abort(code, "at once")
        async for message in requests:
            messages.append(message)
            if len(messages) == after:
                await context.abort(code, "later")
            told = [(item.id, self.results(item)) for item in message.items]
            results = [{"id": item_id, **result} for item_id, result in told if result is not None]
            if results:
                yield StreamBuildDurationPredictionsResponse(results=results)
        self.ended_well += 1

    def items(self, stream: int) -> list[Any]:
        return [item for message in self.messages[stream] for item in message.items]


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    servicer = Streams()
    server = grpc.aio.server()
    add_PredictionServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(0)


@asynccontextmanager
async def connected(streams: Streams, **settings: Any) -> AsyncIterator[Any]:
    settings = {"insecure": True, "timeout_seconds": PATIENCE_SECONDS, **settings}
    async with (
        ConductorClient(ConnectionSettings(streams.target, **settings)) as client,
        client.build_duration_stream() as stream,
    ):
        yield stream


async def test_the_answer_is_that_of_a_call(streams):
    async with (
        ConductorClient.connect(streams.target, insecure=True, timeout_seconds=100) as client,
        client.build_duration_stream() as stream,
    ):
        assert await stream.predict("acme", **BUILD) == await client.predict_build_duration("acme", **BUILD)
        await stream.predict("acme", branch="x", contribution_count=3, timeout_seconds=20, **BUILD)
        await stream.predict("acme", timeout_seconds=float("inf"), **BUILD)
        with pytest.raises(TypeError, match="repository and pipeline"):
            await stream.predict("acme")
    first, second, endless = streams.items(0)
    assert (second.request.build.branch, second.request.contribution_count) == ("x", 3)
    assert 90 < first.timeout.ToTimedelta().total_seconds() <= 100
    assert 15 < second.timeout.ToTimedelta().total_seconds() <= 20
    assert not endless.HasField("timeout")
    assert streams.ended_well == len(streams.messages) == 1


async def test_what_is_asked_together_goes_out_together(streams):
    async with connected(streams) as stream:
        await stream.predict("acme", **BUILD)
        await asyncio.gather(*(stream.predict("acme", **BUILD) for _ in range(200)))
    assert len(streams.items(0)) == 201
    assert len(streams.messages[0]) <= 3


async def test_large_items_travel_in_small_messages(streams):
    async with connected(streams, timeout_seconds=5) as stream:
        large = {**BUILD, "branch": "x" * 400_000}
        await asyncio.gather(*(stream.predict("acme", **large) for _ in range(5)))
        with pytest.raises(Overloaded) as caught:  # as gRPC tells of a call
            await stream.predict("acme", **{**BUILD, "branch": "x" * 5_000_000})
        await stream.predict("acme", **BUILD)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [len(message.items) for message in streams.messages[0]] == [2, 2, 1, 1]


async def test_an_item_fails_alone(streams):
    bad = status(grpc.StatusCode.INVALID_ARGUMENT, "bad", ErrorInfo(reason="INVALID_FIELD", domain="conductor"))
    streams.results = lambda item: {"error": bad} if item.request.build.branch == "bad" else {"response": answer()}
    async with connected(streams) as stream:
        asked = [stream.predict("acme", branch=branch, **BUILD) for branch in ("good", "bad", "good")]
        first, error, third = await asyncio.gather(*asked, return_exceptions=True)
    assert first.prediction_id == third.prediction_id == "p1"
    assert (type(error), error.reason) == (InvalidRequest, ErrorReason.INVALID_FIELD)


async def test_an_overloaded_server_is_asked_once_more_when_it_says_when(streams):
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(100)
    full = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", ErrorInfo(reason="OVERLOADED", domain="conductor"), retry)
    answers = iter([{"error": full}, {"response": answer()}, {"error": full}, {"error": full}])
    streams.results = lambda _: next(answers)
    async with connected(streams) as stream:
        begin = time.monotonic()
        await stream.predict("acme", **BUILD)
        assert time.monotonic() - begin >= 0.1
        with pytest.raises(Overloaded) as caught:
            await stream.predict("acme", **BUILD)
        assert caught.value.retry_delay == timedelta(seconds=0.1)


async def test_no_answer_in_time_and_one_too_late(streams):
    late = iter([None])
    streams.results = lambda _: next(late, {"response": answer()})
    async with connected(streams) as stream:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await stream.predict("acme", timeout_seconds=0.2, **BUILD)
        assert 0.2 <= time.monotonic() - begin < PATIENCE_SECONDS / 2
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(DeadlineExceeded):
            await stream.predict("acme", timeout_seconds=0.0, **BUILD)
        await stream.predict("acme", **BUILD)
        assert not stream._asked


async def test_who_is_cancelled_forgets_the_answer():
    held = asyncio.Event()

    async def hold(message):
        if message.build.branch == "held":
            await held.wait()

    async with (
        serving() as running,
        ConductorClient.connect(running.target, insecure=True, timeout_seconds=PATIENCE_SECONDS) as client,
        client.build_duration_stream() as stream,
    ):
        running.predictions.behaviour = hold
        leaving, staying = (asyncio.ensure_future(stream.predict("acme", branch="held", **BUILD)) for _ in range(2))
        await _until(lambda: running.predictions.calls == 2)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await stream.predict("acme", **BUILD)
        held.set()
        await staying
        assert not stream._asked
        assert running.predictions.calls == 3


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_a_broken_stream_is_opened_again_and_asked_what_has_no_answer(streams, code):
    streams.ends = [(2, code), (0, code), (1, code)]
    async with connected(streams, timeout_seconds=10) as stream:
        await stream.predict("acme", branch="0", **BUILD)
        asked = [stream.predict("acme", branch=str(number), **BUILD) for number in range(1, 6)]
        assert len(await asyncio.gather(*asked)) == 5
        await stream.predict("acme", branch="6", **BUILD)
    branches = [[item.request.build.branch for item in streams.items(at)] for at in range(4)]
    assert branches == [[*"012345"], [], [*"12345"], [*"123456"]]


async def test_retries_end(streams):
    streams.ends = [(0, UNAVAILABLE)] * 10
    async with connected(streams, maximum_attempts=3) as stream:
        with pytest.raises(Unavailable):
            await stream.predict("acme", **BUILD)
        assert len(streams.messages) == 3
        streams.ends = []
        await stream.predict("acme", **BUILD)


async def test_attempts_outlast_a_connection_that_fails_or_two(streams):
    """gRPC makes another one after 50 ms, and the next after 80 ms more."""
    streams.ends = [(0, UNAVAILABLE)] * 30
    for _ in range(6):
        async with connected(streams, timeout_seconds=10) as stream:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await stream.predict("acme", **BUILD)
            assert time.monotonic() - began > 0.3
    assert len(streams.messages) == 30


async def test_a_server_that_is_not_there():
    async with connected(Streams(target="localhost:1")) as stream:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await stream.predict("acme", **BUILD)


async def test_nothing_else_is_retried_and_the_next_question_has_a_new_stream(streams):
    streams.ends = [(1, grpc.StatusCode.INTERNAL)]
    async with connected(streams) as stream:
        asked = [stream.predict("acme", **BUILD) for _ in range(2)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in found] == [InternalError] * 2
        await stream.predict("acme", **BUILD)
    assert len(streams.messages) == 2


async def test_an_expired_token_is_fetched_again(streams):
    tokens = (f"token {number}" for number in itertools.count())
    streams.ends = [(2, UNAUTHENTICATED), (None, None), (0, UNAUTHENTICATED), (0, UNAUTHENTICATED)]
    async with connected(streams, token=lambda: next(tokens)) as stream:
        await stream.predict("acme", **BUILD)
        await stream.predict("acme", **BUILD)
        assert streams.tokens == ["Bearer token 0", "Bearer token 1"]
    async with connected(streams, token=lambda: next(tokens)) as stream:
        with pytest.raises(Unauthenticated):  # once more, and no more than that
            await stream.predict("acme", **BUILD)
    assert len(streams.tokens) == 4


async def test_what_the_tokens_source_raises_reaches_who_asks(streams):
    def source():
        raise OSError("no token today")

    async with connected(streams, token=source) as stream:
        for _ in range(2):
            with pytest.raises(OSError, match="no token today"):
                await stream.predict("acme", **BUILD)


async def test_closing(streams):
    streams.results = lambda _: None
    async with connected(streams, timeout_seconds=10) as stream:
        asking = asyncio.ensure_future(stream.predict("acme", **BUILD))
        await _until(lambda: streams.messages and streams.items(0))
    with pytest.raises(ConductorError) as caught:
        await asking
    assert caught.value.code is grpc.StatusCode.CANCELLED
    assert streams.ended_well == 1
    with pytest.raises(RuntimeError, match="not open"):
        await stream.predict("acme", **BUILD)
    async with ConductorClient.connect(streams.target, insecure=True, timeout_seconds=PATIENCE_SECONDS) as client:
        with pytest.raises(RuntimeError, match="not open"):
            await client.build_duration_stream().predict("acme", **BUILD)


async def test_a_stream_without_questions_opens_nothing(streams):
    async with connected(streams):
        await asyncio.sleep(0.05)
    assert not streams.messages


async def test_no_more_is_sent_than_is_answered_soon(streams):
    streams.results = lambda _: None
    async with connected(streams, timeout_seconds=2) as stream:
        found = await asyncio.gather(*(stream.predict("acme", **BUILD) for _ in range(1000)), return_exceptions=True)
        assert {type(error) for error in found} == {DeadlineExceeded}
        assert len(streams.items(0)) == 256
        assert len(streams.messages) == 1


async def test_rolling_restarts_fail_no_question():
    """Servers that share a port are replaced one after the other under load; some questions are under way each time."""
    async with AsyncExitStack() as stack:
        current = await stack.enter_async_context(serving(share_port=True, drain_seconds=60))
        current.predictions.behaviour = _take_a_while
        port = current.server.port
        settings = ConnectionSettings(current.target, insecure=True, timeout_seconds=PATIENCE_SECONDS)
        client = await stack.enter_async_context(ConductorClient(settings))
        stream = await stack.enter_async_context(client.build_duration_stream())
        stopped = asyncio.Event()
        asked = 0

        async def ask():
            nonlocal asked
            while not stopped.is_set():
                await stream.predict("acme", **BUILD)
                asked += 1

        asking = [asyncio.ensure_future(ask()) for _ in range(16)]
        for _ in range(5):
            following = await stack.enter_async_context(serving(share_port=True, port=port, drain_seconds=60))
            following.predictions.behaviour = _take_a_while
            seen = asked
            await _until(lambda seen=seen: asked > seen + 100)
            started = time.monotonic()
            await current.server.stop()
            assert time.monotonic() - started < 30
            current = following
        stopped.set()
        await asyncio.gather(*asking)
        assert asked > 500


async def test_tokens_expire_and_no_question_fails(tmp_path):
    keys, authority, made = Keys(), Authority(tmp_path), []
    secure = {**secured(tmp_path, keys, authority), "token_leeway_seconds": 0}

    def token():
        made.append(keys.token(exp=int(time.time()) + 2))
        return made[-1]

    async with serving(**secure) as running:
        running.predictions.behaviour = _take_a_while
        settings = ConnectionSettings(
            running.target, token=token, root_certificates=authority.file, timeout_seconds=PATIENCE_SECONDS
        )
        async with ConductorClient(settings) as client, client.build_duration_stream() as stream:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                await asyncio.gather(*(stream.predict("acme", **BUILD) for _ in range(10)))
    assert 2 <= len(made) <= 6


async def _take_a_while(_):
    await asyncio.sleep(0.01)


async def _until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
