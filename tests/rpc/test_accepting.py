"""Calls that come at once: how many are taken, what becomes of the others, and that these are counted."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor.prediction.v1 import prediction_service_pb2_grpc
from conductor_rpc import accepting, names
from conductor_rpc.telemetry import Telemetry
from rpc.harness import failure, request, serving

BURST = 100


@contextmanager
def crowd(target: str):
    """Calls made by threads of gRPC's own, so that they come while our event loop stands still."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask(count: int) -> list[grpc.Future]:
            return [stub.PredictBuildDuration.future(request(f"tenant-{at}"), timeout=20) for at in range(count)]

        yield ask


def stand_still(calls: list[grpc.Future], until_done: int, seconds: float) -> None:
    """The event loop does not turn until so many calls have ended; that they come takes a moment, too."""
    until = time.monotonic() + seconds
    while sum(call.done() for call in calls) < until_done and time.monotonic() < until:
        time.sleep(0.02)


def codes(calls: list[grpc.Future]) -> list[str]:
    return [call.code().name for call in calls]


async def test_a_burst_is_taken_at_once():
    async with serving(max_pending_count=4) as running:
        with crowd(running.target) as ask:
            await asyncio.to_thread(lambda: codes(ask(1)))
            calls = ask(BURST)
            stand_still(calls, 1, seconds=0.5)
            assert await asyncio.to_thread(codes, calls) == ["OK"] * BURST
        assert running.predictions.calls == 1 + BURST


async def test_an_unknown_release_takes_calls_one_by_one(monkeypatch, caplog):
    """What gRPC does without us; and the same burst shows that."""
    monkeypatch.setattr(accepting, "_KNOWN", ("0.",))
    async with serving(max_pending_count=4) as running:
        assert "one by one" in caplog.text
        with crowd(running.target) as ask:
            await asyncio.to_thread(lambda: codes(ask(1)))
            calls = ask(BURST)
            stand_still(calls, BURST - 10, seconds=10)
            found = await asyncio.to_thread(codes, calls)
        assert found.count("CANCELLED") >= BURST - 6


async def test_beyond_the_room_grpc_refuses_and_it_is_counted():
    reader = InMemoryMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider([reader]))
    async with serving(telemetry, max_in_flight_count=8, min_in_flight_count=8, max_pending_count=4) as running:
        with crowd(running.target) as ask:
            await asyncio.to_thread(lambda: codes(ask(1)))
            calls = ask(BURST)
            most = 8 + 1 + 4  # places, gRPC's own loop, its queue
            stand_still(calls, BURST - most - 1, seconds=10)
            assert sum(call.done() for call in calls) >= BURST - most - 1
            assert {call.code().name for call in calls if call.done()} == {"CANCELLED"}
            found = await asyncio.to_thread(codes, calls)
        assert found.count("OK") >= 8
        assert dropped(reader) in (
            0,
            found.count("CANCELLED"),
        )  # one reading alone can't tell them from those that wait
        assert dropped(reader) == found.count("CANCELLED")
        async with running.stub() as stub:
            for _ in range(10):
                await stub.PredictBuildDuration(request())
        assert dropped(reader) == found.count("CANCELLED")


async def test_no_more_is_let_in_than_there_are_places():
    release = asyncio.Event()
    async with serving(max_in_flight_count=8, min_in_flight_count=8) as running, running.stub() as stub:
        running.predictions.behaviour = lambda _: release.wait()
        calls = [asyncio.ensure_future(_ask(stub, f"tenant-{at}")) for at in range(20)]
        refused = asyncio.as_completed(calls, timeout=10)
        for _ in range(12):
            await next(refused)
        assert running.predictions.calls == 8
        assert {call.result() for call in calls if call.done()} <= {"OVERLOADED", "TENANT_OVERLOADED"}
        release.set()
        assert [call for call in await asyncio.gather(*calls) if call == "OK"] == ["OK"] * 8
        assert {await _ask(stub, f"again-{at}") for at in range(20)} == {"OK"}  # room came back


async def test_a_call_knows_nothing_of_those_before_it():
    """It is asked for when another one makes room, in that one's task."""
    whose: ContextVar[int] = ContextVar("whose", default=0)
    seen: list[int] = []

    async def behaviour(_) -> None:
        seen.append(whose.get())
        whose.set(len(seen))

    async with serving(max_in_flight_count=2, min_in_flight_count=2) as running, running.stub() as stub:
        running.predictions.behaviour = behaviour
        for _ in range(20):
            await stub.PredictBuildDuration(request())
    assert seen == [0] * 20


async def test_waiting_in_our_own_loop_counts_as_time_taken():
    """The limit falls by how long callers wait, wherever they do."""
    took: list[float] = []
    async with serving() as running:
        running.server._onion.gate.calls.limit.sample = lambda seconds, *_: took.append(seconds)
        with crowd(running.target) as ask:
            await asyncio.to_thread(lambda: codes(ask(1)))
            running.predictions.behaviour = _busy
            await asyncio.to_thread(lambda: codes(ask(10)))
    assert max(took) > 5 * 0.02  # each takes 0.02 s of the loop, and waits for those before it


async def test_it_stops_without_a_word(caplog):
    caplog.set_level(logging.DEBUG)
    async with serving() as running, running.stub() as stub:
        await stub.PredictBuildDuration(request())
    await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def _known_release() -> None:
    assert grpc.__version__.startswith(accepting._KNOWN), "look at what conductor_rpc.accepting calls, and add it there"


async def _busy(_) -> None:
    time.sleep(0.02)  # noqa: ASYNC251 - it is the loop that must be busy


async def _ask(stub, tenant: str) -> str:
    try:
        await stub.PredictBuildDuration(request(tenant))
    except grpc.aio.AioRpcError as error:
        return failure(error).reason
    return "OK"


def dropped(reader: InMemoryMetricReader) -> int:
    found = reader.get_metrics_data()
    return next(
        point.value
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == names.DROPPED
        for point in metric.data.data_points
    )
