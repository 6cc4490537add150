"""Calls that come together are handed over together, and no more of them than there is room for."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from conductor.prediction.v1 import prediction_service_pb2_grpc
from conductor_rpc import calls_ahead, names
from conductor_rpc.call import NO_DEADLINE, Call, current_call
from conductor_rpc.gate import Gate
from conductor_rpc.settings import RpcSettings
from conductor_rpc.telemetry import OFF
from machine import tries
from rpc.harness import PREDICTION, failure, request, serving, wait_for_calls
from rpc.traced import Traced

CALLS = 24
TURN_SECONDS = 0.02
GOOD = 4
TURNS_EACH = 3
"""Of the event loop, at least, between calls that are handed over one by one."""


@asynccontextmanager
async def burst(running, before=0):
    """Calls that have all come while the event loop stood still; ``before``: how many others had come."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(running.target, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        await asyncio.to_thread(stub.PredictBuildDuration, request())
        calls = [stub.PredictBuildDuration.future(request(), timeout=30) for _ in range(CALLS)]
        wait_for_calls(running.server, before + 1 + CALLS)
        yield calls
        await asyncio.to_thread(lambda: [call.code() for call in calls])


async def turns_between_first_and_last(running, before=0) -> int:
    """How often the event loop turned from the first of the calls to the last.

    Its turns are long: short ones would be counted for as long as gRPC's own threads wait for a processor.
    """
    moments: list[int] = []
    turns, counting = 0, True

    def turn():
        nonlocal turns
        turns += 1
        time.sleep(TURN_SECONDS)
        if counting:
            asyncio.get_running_loop().call_soon(turn)

    async def note(_):
        moments.append(turns)

    running.predictions.behaviour = note
    async with burst(running, before) as calls:
        del moments[:]
        turn()
        await asyncio.to_thread(lambda: [call.result() for call in calls])
        counting = False
    return moments[-1] - moments[0]


async def test_calls_that_come_together_are_handed_over_together():
    for _ in tries(5):  # gRPC's own threads may not get a processor for long
        async with serving() as running:
            turns = await turns_between_first_and_last(running)
        if turns < CALLS:
            break
    assert turns < CALLS


async def test_with_a_release_that_is_not_known_they_come_one_by_one(monkeypatch, caplog):
    monkeypatch.setattr(calls_ahead, "_KNOWN_RELEASES", ("0.",))
    async with serving(max_pending_count=CALLS) as running:
        assert await turns_between_first_and_last(running) >= CALLS * TURNS_EACH
    assert "is not known well enough" in caplog.text


def test_there_is_room_for_what_the_limit_leaves():
    gate = Gate(RpcSettings(insecure=True, max_in_flight_count=4), OFF, {})
    call = Call("/method", {}, NO_DEADLINE)
    assert gate.room(0) == 4
    place = gate.admit(gate.calls, call, "acme", request())
    assert gate.room(0) == 3
    assert gate.room(1) == 2  # which is on its way to a place
    assert gate.room(100) == 1  # some of these may never come
    gate.release(gate.calls, call, place, answered=True)
    assert gate.room(0) == 4


@asynccontextmanager
async def unsaid(running, count):
    """Calls whose callers have not sent a message; each takes one that it sends then."""
    method = f"/{PREDICTION}/PredictBuildDuration"
    async with running.channel() as channel:
        open_call = channel.stream_unary(method, request_serializer=lambda message: message.SerializeToString())
        calls = []
        for number in range(1, count + 1):  # one by one: the queue before them is short
            calls.append(open_call(timeout=60))
            async with asyncio.timeout(30):
                await calls[-1].wait_for_connection()
                while running.server._onion.handed_count < number:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
        yield calls
        for call in calls:
            call.cancel()


async def test_who_opens_calls_and_says_nothing_takes_nobodys_room():
    most = 2 * CALLS
    for _ in tries(5):  # as above
        async with serving(max_in_flight_count=most) as running, running.stub() as stub, unsaid(running, 4 * CALLS):
            for _ in range(GOOD):  # one of them overtakes the silent ones, whichever grpc.aio takes by itself
                await stub.PredictBuildDuration(request())
            turns = await turns_between_first_and_last(running, before=4 * CALLS + GOOD)
        if turns < CALLS:
            break
    assert turns < CALLS


async def test_what_waits_for_its_caller_has_not_waited_for_us():
    """Else a tenant that sends its messages late would have everybody's limit fall."""
    told: list[float] = []

    async def note(_):
        told.append(current_call().began)

    async with serving() as running, running.stub() as stub, unsaid(running, GOOD) as late:
        running.predictions.behaviour = note
        silent_until = time.monotonic()
        for _ in range(GOOD):  # overtake them
            await stub.PredictBuildDuration(request())
        for call in late:
            await call.write(request())
            await call.done_writing()
            await call
    assert min(told) >= silent_until


async def test_who_leaves_is_not_worked_for_and_who_comes_after_is():
    async with serving() as running, running.stub() as stub:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def wait(_):
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        running.predictions.behaviour = wait
        call = stub.PredictBuildDuration(request())
        async with asyncio.timeout(30):
            await begun.wait()
            call.cancel()
            await cancelled.wait()
        running.predictions.behaviour = None
        for _ in range(2 * CALLS):
            await stub.PredictBuildDuration(request())


async def test_an_error_is_told_as_ever():
    async def fail(_):
        raise RuntimeError("secret")

    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = fail
        for _ in range(2 * CALLS):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.PredictBuildDuration(request())
            assert failure(caught.value).code == grpc.StatusCode.INTERNAL


async def test_a_server_stops_while_calls_are_asked_for():
    before = len(asyncio.all_tasks())
    async with serving() as running, running.stub() as stub:
        await stub.PredictBuildDuration(request())
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_what_waits_for_the_event_loop_has_waited():
    """The limit would not notice a queue that stands before it."""
    told: list[float] = []

    async def note(_):
        told.append(time.monotonic() - current_call().began)

    async with serving() as running:
        running.predictions.behaviour = note
        async with burst(running) as calls:
            del told[:]
            while len(told) < CALLS:
                await asyncio.sleep(0)
                time.sleep(TURN_SECONDS)  # noqa: ASYNC251 - each turn of the loop takes so long
            await asyncio.to_thread(lambda: [call.result() for call in calls])
    assert min(told) >= TURN_SECONDS


async def test_waiting_for_ones_turn_is_a_part_of_the_call_and_its_trace_tells_so():
    traced = Traced(slow_seconds=0)

    async def hold_up(_):
        time.sleep(TURN_SECONDS)  # noqa: ASYNC251 - holding others up is the point

    async with serving(traced.telemetry) as running:
        running.predictions.behaviour = hold_up
        async with burst(running) as calls:
            await asyncio.to_thread(lambda: [call.result() for call in calls])
    receives = {span.parent.span_id: span for span in traced.all_spans if span.name == names.RECEIVE}
    last = max(traced.calls, key=lambda span: span.end_time)
    receive = receives[last.context.span_id]
    assert receive.start_time == last.start_time
    assert receive.end_time - receive.start_time > 2 * TURN_SECONDS * 1e9
    assert last.end_time - last.start_time > receive.end_time - receive.start_time + 0.9 * TURN_SECONDS * 1e9
