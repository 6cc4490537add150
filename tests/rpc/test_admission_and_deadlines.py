"""Bounded work: admission, fair shares, deadlines."""

from __future__ import annotations

import asyncio
import json
import time

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor.prediction.v1 import prediction_service_pb2_grpc
from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest
from conductor_rpc import names
from conductor_rpc.admission import Admission
from conductor_rpc.concurrency_limit import FixedLimit
from conductor_rpc.exceptions import Overloaded, TenantOverloaded
from conductor_rpc.names import CRITICALITY
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.work import Criticality
from rpc.harness import failure, request, serving

BATCH = Criticality.BATCH


def test_a_flood_leaves_room_for_others():
    admission = Admission(FixedLimit(100))
    places = []
    with pytest.raises(TenantOverloaded):
        while True:
            places.append(admission.admit("flood"))
    assert len(places) == 75
    places += [admission.admit("quiet") for _ in range(25)]
    with pytest.raises(Overloaded):
        admission.admit("third")
    assert admission.in_flight_count == 100
    for place in places:
        admission.release(place)
    assert admission.in_flight_count == admission.taken_count == 0
    for number in range(1000):  # nothing is kept of tenants that have gone
        admission.release(admission.admit(str(number)))
    assert not admission._by_tenant


def test_of_places_that_last_each_tenant_leaves_half():
    admission = Admission(FixedLimit(1024), batch_share=1.0, lasting=True)
    for number in range(10):
        left = 1024 - admission.taken_count
        places = [admission.admit(f"greedy-{number}") for _ in range(left // 2)]
        with pytest.raises(TenantOverloaded):
            admission.admit(f"greedy-{number}")
    admission.release(places.pop())
    admission.admit("late")
    admission.admit("latest")
    with pytest.raises(Overloaded):
        admission.admit("nobody")


def test_batch_work_is_refused_first():
    admission = Admission(FixedLimit(100), batch_share=0.5)
    batches = [admission.admit(f"batch-{number}", BATCH, question_count=80) for number in range(5)]
    with pytest.raises(Overloaded):
        admission.admit("another", BATCH)
    interactive = [admission.admit(f"person-{number}") for number in range(50)]
    with pytest.raises(Overloaded):
        admission.admit("one more")
    for place in batches:
        admission.release(place)
    with pytest.raises(Overloaded):  # those who wait for an answer have taken what batches may have
        admission.admit("another", BATCH)
    admission.release(interactive.pop())
    admission.admit("another", BATCH)


def test_a_batch_larger_than_its_share_gets_in_alone():
    admission = Admission(FixedLimit(16), batch_share=0.5)
    place = admission.admit("acme", BATCH, question_count=1024)
    with pytest.raises(TenantOverloaded):
        admission.admit("acme", BATCH)
    admission.admit("acme")  # somebody waits for this one
    admission.release(place)


async def test_beyond_the_bound_is_refused_at_once_and_recovers():
    release = asyncio.Event()

    async def wait(_):
        await release.wait()

    async with serving(max_in_flight_count=4) as running, running.stub() as stub:
        running.predictions.behaviour = wait
        held = [asyncio.ensure_future(_answer(stub, "flood")) for _ in range(3)]
        await _until(lambda: running.predictions.calls == 3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request("flood"))
        assert not release.is_set()
        assert failure(caught.value).reason == "TENANT_OVERLOADED"
        held.append(asyncio.ensure_future(_answer(stub, "quiet")))
        await _until(lambda: running.predictions.calls == 4)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request("third"))
        found = failure(caught.value)
        assert (found.reason, found.code) == ("OVERLOADED", grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert found.retry_seconds
        release.set()
        await asyncio.gather(*held)
        await stub.PredictBuildDuration(request("third"))
        assert running.server.in_flight_count == 0


async def test_batch_work_gives_way_unless_its_caller_says_otherwise():
    release = asyncio.Event()

    async def wait(_):
        await release.wait()

    batch = BatchPredictBuildDurationsRequest(tenant_id="acme", requests=[request()])
    reader = InMemoryMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider([reader]))
    async with serving(telemetry, max_in_flight_count=4, batch_share=0.5) as running, running.stub() as stub:
        running.predictions.behaviour = wait
        held = [asyncio.ensure_future(_answer(stub, tenant)) for tenant in ("one", "two")]
        await _until(lambda: running.predictions.calls == 2)
        for refused in (
            stub.BatchPredictBuildDurations(batch),
            stub.BatchPredictBuildDurations(batch, metadata=((CRITICALITY, "no such class"),)),
            stub.PredictBuildDuration(request(), metadata=((CRITICALITY, "batch"),)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await refused
            assert failure(caught.value).reason == "OVERLOADED"
        await stub.BatchPredictBuildDurations(batch, metadata=((CRITICALITY, "interactive"),))
        found = points(reader)
        assert found[names.IN_FLIGHT] == [({}, 2)]
        assert found[names.CONCURRENCY_LIMIT] == [({}, 4)]
        assert found[names.REFUSALS] == [({names.REASON: "overloaded", names.CRITICALITY_CLASS: "batch"}, 3)]
        release.set()
        await asyncio.gather(*held)


async def test_the_limit_falls_while_predictions_take_too_long():
    async with serving(target_latency_seconds=0.005, min_in_flight_count=2) as running, running.stub() as stub:
        running.predictions.behaviour = lambda _: asyncio.sleep(0.05)
        reasons: set[str] = set()

        async def ask():
            try:
                await stub.PredictBuildDuration(request())
            except grpc.aio.AioRpcError as error:
                reasons.add(failure(error).reason)

        async with asyncio.timeout(30):
            while not reasons:
                await asyncio.gather(*(ask() for _ in range(32)))
        assert reasons == {"TENANT_OVERLOADED"}
    async with (
        serving(target_latency_seconds=0.005, concurrency_limit="fixed") as running,
        running.stub() as stub,
    ):
        running.predictions.behaviour = lambda _: asyncio.sleep(0.05)
        for _ in range(10):
            await asyncio.gather(*(stub.PredictBuildDuration(request()) for _ in range(32)))


async def test_the_limit_is_told_what_was_answered_and_what_was_given_up():
    told = []

    class Noting(FixedLimit):
        def sample(self, seconds, taken_count, now, *, answered=True):
            told.append(answered)

    async with serving() as running, running.stub() as stub:
        running.server._onion.gate.calls.limit = Noting(8)
        await stub.PredictBuildDuration(request())
        await _until(lambda: told == [True])
        running.predictions.behaviour = lambda _: asyncio.sleep(60)
        cancelled = stub.PredictBuildDuration(request())
        await _until(lambda: running.predictions.calls == 2)
        cancelled.cancel()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictBuildDuration(request(), timeout=0.5)
        await _until(lambda: len(told) == 2 and running.server.in_flight_count == 0)
        assert told == [True, False]


async def test_a_tenant_has_its_rate():
    async with (
        serving(tenant_questions_per_second=0.1, tenant_rates={"large": 1000}) as running,
        running.stub() as stub,
    ):
        began = time.monotonic()
        await stub.PredictBuildDuration(request("small"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request("small"))
        took = time.monotonic() - began
        found = failure(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert 9.9 - took < found.retry_seconds < 10.1
        for _ in range(50):
            await stub.PredictBuildDuration(request("large"))
        await stub.PredictBuildDuration(request("another"))
        assert running.server.in_flight_count == 0


async def test_stock_retries_wait_as_long_as_they_are_told():
    policy = {
        "maxAttempts": 2, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }  # fmt: skip
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with serving(tenant_questions_per_second=3, tenant_burst_seconds=0.1) as running:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", config)]
        async with grpc.aio.insecure_channel(running.target, options=options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for _ in range(3):  # refused once each, and not twice
                await stub.PredictBuildDuration(request(), timeout=30)


async def test_what_would_wait_too_long_is_refused_without_our_doing():
    async with serving(max_pending_count=4, max_in_flight_count=8) as running:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(running.target, options=options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            await asyncio.to_thread(stub.PredictBuildDuration, request())
            calls = [stub.PredictBuildDuration.future(request(), timeout=30) for _ in range(30)]
            until = time.monotonic() + 30
            while sum(call.done() for call in calls) < 14 and time.monotonic() < until:
                time.sleep(0.02)  # noqa: ASYNC251 - the loop must not turn
            assert sum(call.done() for call in calls) >= 14
            codes = await asyncio.to_thread(lambda: [call.code() for call in calls])
            # As many as there is room for have been asked for, and one more.
            assert 14 <= codes.count(grpc.StatusCode.CANCELLED) <= 18
            assert {*codes} <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert running.predictions.calls == 1 + codes.count(grpc.StatusCode.OK)


async def test_a_cancelled_call_gives_its_place_back():
    async with serving(max_in_flight_count=4) as running, running.stub() as stub:
        running.predictions.behaviour = lambda _: asyncio.sleep(60)
        call = stub.PredictBuildDuration(request())
        await _until(lambda: running.server.in_flight_count == 1)
        call.cancel()
        await _until(lambda: running.server.in_flight_count == 0)


async def test_a_deadline_too_short_never_reaches_the_servicer():
    async with serving(minimum_deadline_seconds=20) as running, running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(), timeout=10)
        assert failure(caught.value).reason == "DEADLINE_TOO_SHORT"
        assert running.predictions.calls == 0
        await stub.PredictBuildDuration(request(), timeout=40)


async def test_a_call_without_a_deadline_gets_one():
    async with serving(default_deadline_seconds=0.1) as running, running.stub() as stub:
        running.predictions.behaviour = lambda _: asyncio.sleep(60)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request())
        found = failure(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
        await _until(lambda: running.server.in_flight_count == 0)


async def test_work_stops_at_the_callers_deadline():
    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = lambda _: asyncio.sleep(60)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await _until(lambda: running.server.in_flight_count == 0)


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, object], float]]]:
    """Attributes and values of all numbers, by name."""
    found = reader.get_metrics_data()
    return {
        metric.name: [(dict(point.attributes), point.value) for point in metric.data.data_points]
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if hasattr(metric.data.data_points[0], "value")
    }


async def _answer(stub, tenant):
    return await stub.PredictBuildDuration(request(tenant))


async def _until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
