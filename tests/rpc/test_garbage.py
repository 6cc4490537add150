"""However a call ends, it leaves nothing behind that only the garbage collector finds: a thousand refusals a second
would stop everybody else's calls again and again."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Iterator

import grpc
import pytest
import uvloop
from grpc._cython import cygrpc

from conductor.prediction.v1 import build_duration_pb2
from conductor_rpc.call import Call
from rpc.harness import Running, item, items, request, serving

CALLS = 20


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def calls_left() -> int:
    return sum(type(one) in (Call, cygrpc._ServicerContext) for one in gc.get_objects())


async def settled() -> int:
    """How many calls there are once those that ended a moment ago are gone."""
    for _ in range(200):
        if not calls_left():
            break
        await asyncio.sleep(0.01)
    return calls_left()


async def code_of(call: grpc.aio.Call) -> grpc.StatusCode:
    return await call.code()


async def asleep(_: object) -> None:
    await asyncio.Event().wait()


async def failing(_: object) -> None:
    raise RuntimeError("planted")


async def asked(running: Running, stub: object) -> set[grpc.StatusCode]:
    return {await code_of(stub.PredictBuildDuration(request(), timeout=20)) for _ in range(CALLS)}


async def answered() -> None:
    async with serving() as running, running.stub() as stub:
        assert await asked(running, stub) == {grpc.StatusCode.OK}
        assert await settled() == 0


async def refused() -> None:
    async with serving(tenant_questions_per_second=1e-3) as running, running.stub() as stub:
        await code_of(stub.PredictBuildDuration(request(), timeout=20))
        assert await asked(running, stub) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await settled() == 0


async def failed() -> None:
    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = failing
        assert await asked(running, stub) == {grpc.StatusCode.INTERNAL}
        assert await settled() == 0


async def taken_for_no_request() -> None:
    async with serving() as running, running.channel() as channel:
        method = channel.unary_unary("/conductor.prediction.v1.PredictionService/PredictBuildDuration")
        for content in (b"\xff\xff", b""):
            for _ in range(CALLS):
                assert await code_of(method(content, timeout=20)) == grpc.StatusCode.INVALID_ARGUMENT
        assert await settled() == 0


async def a_batch_that_breaks_a_rule() -> None:
    async with serving() as running, running.stub() as stub:
        batch = build_duration_pb2.BatchPredictBuildDurationsRequest()
        for _ in range(CALLS):
            code = await code_of(stub.BatchPredictBuildDurations(batch, timeout=20))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert await settled() == 0


async def given_up_at_the_deadline() -> None:
    async with serving(default_deadline_seconds=0.05) as running, running.stub() as stub:
        running.predictions.behaviour = asleep
        for timeout in (0.05, None):
            calls = [stub.PredictBuildDuration(request(), timeout=timeout) for _ in range(CALLS)]
            assert {await code_of(call) for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert await settled() == 0


async def cancelled() -> None:
    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = asleep
        calls = [stub.PredictBuildDuration(request(), timeout=20) for _ in range(CALLS)]
        while running.server.in_flight_count < CALLS:  # noqa: ASYNC110 - another end
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        assert await settled() == 0


async def items_and_their_streams() -> None:
    async with serving() as running, running.stub() as stub:
        for number in range(CALLS):
            stream = stub.StreamBuildDurationPredictions(timeout=20)
            await stream.write(items(item(1), item(2, repository="")))
            results = 0
            while results < 2:
                results += len((await stream.read()).results)
            if number % 2:
                stream.cancel()
            else:
                await stream.done_writing()
                assert await code_of(stream) == grpc.StatusCode.OK
        assert await settled() == 0


@pytest.mark.parametrize(
    "ending",
    [
        answered,
        refused,
        failed,
        taken_for_no_request,
        a_batch_that_breaks_a_rule,
        given_up_at_the_deadline,
        cancelled,
        items_and_their_streams,
    ],
    ids=lambda ending: ending.__name__,
)
def test_nothing_is_left(ending: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "conductor_rpc.errors")  # a record holds what was raised
    uvloop.run(ending())  # as a server's: asyncio's own loop keeps timers that were cancelled
