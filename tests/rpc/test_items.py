"""Streams of items: each is a call of its own, and none costs its neighbours anything."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from google.rpc import status_pb2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    StreamBuildDurationPredictionsResponse,
)
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Call, set_current_call
from conductor_rpc.concurrency_limit import FixedLimit
from conductor_rpc.telemetry import Telemetry
from rpc.harness import PREDICTION, bearer, failure, from_status, item, items, request, serving
from rpc.item_streams import end_of, results, until
from rpc.traced import Traced

METHOD = f"/{PREDICTION}/StreamBuildDurationPredictions"


async def test_an_item_fails_as_a_call_would_and_alone(secure, keys, authority):
    bad = {
        1: item(1, "other"),
        2: item(2, change={"added_line_count": -1}),
        3: item(3, repository=""),
        4: item(4, timeout=0.0),
        5: item(5, timeout=-1.0),
    }
    token = bearer(keys.token())
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        stream = stub.StreamBuildDurationPredictions(metadata=token)
        await stream.write(items(item(0), *bad.values(), item(6)))
        found = await results(stream, 7)
        assert {item_id for item_id, result in found.items() if result.HasField("response")} == {0, 6}
        for item_id, asked in bad.items():
            if not asked.HasField("timeout"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.PredictBuildDuration(asked.request, metadata=token)
                details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
                assert found[item_id].error == status_pb2.Status.FromString(details)
        assert from_status(found[4].error).reason == from_status(found[5].error).reason == "DEADLINE_TOO_SHORT"
        await stream.write(items(item(1)))  # an id is free again once its result has come
        assert (await results(stream, 1))[1].HasField("response")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        assert running.predictions.calls == 3


async def test_an_item_without_a_request_is_refused():
    async with serving() as running, running.stub() as stub:
        stream = stub.StreamBuildDurationPredictions()
        nothing = items({"id": 7})
        await stream.write(nothing)
        found = await results(stream, 1)
        assert set(from_status(found[7].error).fields) == {"tenant_id", "build"}


async def test_answers_overtake_each_other_and_all_come():
    held = asyncio.Event()

    async def hold(message):
        if message.build.branch == "slow":
            await held.wait()

    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = hold
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(item(1, branch="slow"), item(2)))
        assert set(await results(stream, 1)) == {2}
        await stream.write(items(item(3)))
        await stream.done_writing()
        assert set(await results(stream, 1)) == {3}
        held.set()
        assert set(await results(stream, 1)) == {1}
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_what_gets_ready_together_travels_together():
    async with serving() as running, running.stub() as stub:
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(*(item(number) for number in range(100))))
        assert len((await stream.read()).results) == 100


async def test_an_item_has_its_own_deadline():
    own, default = [item(1), item(2, timeout=0.05)], [item(2)]
    for asked, seconds, default_seconds, under_way in ((own, 0.05, 60, 2), (default, 0.3, 0.3, 1)):
        async with serving(default_deadline_seconds=default_seconds) as running, running.stub() as stub:
            running.predictions.behaviour = lambda _: asyncio.sleep(60)
            stream = stub.StreamBuildDurationPredictions()
            started = time.monotonic()
            await stream.write(items(*asked))
            result = (await results(stream, 1))[2]
            assert time.monotonic() - started >= seconds
            found = from_status(result.error)
            assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
            assert running.server.in_flight_count == under_way, "the stream itself, and who has time"
            stream.cancel()


async def test_each_item_is_admitted():
    held = asyncio.Event()

    async def hold(_):
        await held.wait()

    async with serving(max_in_flight_count=4) as running, running.stub() as stub:
        running.predictions.behaviour = hold
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(*(item(number) for number in range(5)), item(5, "quiet")))
        refused = await results(stream, 2)
        assert {from_status(result.error).reason for result in refused.values()} == {"TENANT_OVERLOADED"}
        assert all(from_status(result.error).retry_seconds for result in refused.values())
        held.set()
        assert all(result.HasField("response") for result in (await results(stream, 4)).values())
        await stream.write(items(item(0)))
        assert (await results(stream, 1))[0].HasField("response")


async def test_a_stream_is_held_back_as_the_limit_falls():
    """Calls would be refused; items wait where they come from."""
    held = asyncio.Event()

    async def hold(_):
        await held.wait()

    async with serving(max_in_flight_count=256, max_stream_item_count=8) as running, running.stub() as stub:
        running.server._onion.gate.calls.limit = FixedLimit(64)
        running.predictions.behaviour = hold
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(*(item(number) for number in range(8))))
        await until(lambda: running.predictions.calls == 2)
        batch = BatchPredictBuildDurationsRequest(tenant_id="acme", requests=[request()])
        await stub.BatchPredictBuildDurations(batch)
        assert running.predictions.calls == 3, "the batch has come and gone, and no item has begun meanwhile"
        held.set()
        assert all(result.HasField("response") for result in (await results(stream, 8)).values())


async def test_open_streams_take_no_place_of_work_and_are_bounded():
    async with serving(max_in_flight_count=4, max_stream_count=12) as running, running.stub() as stub:
        streams = []
        for _ in range(6):
            streams.append(stub.StreamBuildDurationPredictions())
            await streams[-1].write(items(item(1)))
            await results(streams[-1], 1)
        await stub.PredictBuildDuration(request())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(stub.StreamBuildDurationPredictions())
        assert failure(caught.value).reason == "TENANT_OVERLOADED"
        streams.pop().cancel()
        await until(lambda: running.server.in_flight_count == 5)
        streams.append(stub.StreamBuildDurationPredictions())
        await streams[-1].write(items(item(1)))
        await results(streams[-1], 1)
        for stream in streams:
            stream.cancel()
        await until(lambda: running.server.in_flight_count == 0)


async def test_no_more_than_so_many_items_are_under_way():
    held, busy, most = asyncio.Event(), 0, 0

    async def hold(_):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await held.wait()
        busy -= 1

    async with serving(max_stream_item_count=4) as running, running.stub() as stub:
        running.predictions.behaviour = hold
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(*(item(number) for number in range(10))))
        await stream.write(items(*(item(number) for number in range(10, 20))))
        await stream.done_writing()
        await until(lambda: busy == 4)
        await asyncio.sleep(0.05)
        assert running.predictions.calls == 4
        held.set()
        assert set(await results(stream, 20)) == {*range(20)}
        assert most == 4
        assert await stream.read() is grpc.aio.EOF


async def test_who_does_not_read_is_not_read_from():
    """20 KB an answer, 40 MB of them: what the server holds is bounded, and comes when it is wanted."""
    count = 2000
    async with serving(max_stream_item_count=8) as running, running.stub() as stub:
        running.predictions.response.contributions.add(feature="x" * 20_000)
        stream = stub.StreamBuildDurationPredictions()

        async def send():
            for number in range(count):
                await stream.write(items(item(number)))
            await stream.done_writing()

        sending = asyncio.ensure_future(send())
        await until(lambda: running.predictions.calls >= 8)
        seen = -1
        while seen < running.predictions.calls:
            seen = running.predictions.calls
            await asyncio.sleep(0.3)
        assert 8 <= seen < count // 2
        assert set(await results(stream, count)) == {*range(count)}
        await sending
        assert await stream.read() is grpc.aio.EOF


async def test_an_id_is_free_as_soon_as_its_result_is_out():
    """The next item of that id may be read before the write of the result has returned."""
    async with serving() as running:
        asked, written = asyncio.Queue(), []

        async def requests():
            while message := await asked.get():
                yield message

        async def write(response):
            written.append([result.id for result in response.results])
            if len(written) == 1:
                asked.put_nowait(items(item(1)))
                asked.put_nowait(None)
                await until(lambda: running.predictions.calls == 2)

        set_current_call(Call(METHOD, {}, NO_DEADLINE))
        asked.put_nowait(items(item(1)))
        response = StreamBuildDurationPredictionsResponse
        await running.server.item_streams.answer(requests(), write, response, METHOD, running.predictions.predict)
        assert written == [[1], [1]]


async def test_an_item_tells_how_long_it_waited_for_its_place():
    """Its call begins when it has one, and is kept as any other: here since nothing was left of its time."""
    held, traced = asyncio.Event(), Traced()

    async def hold(_):
        await held.wait()

    async with serving(traced.telemetry, max_stream_item_count=1) as running, running.stub() as stub:
        running.predictions.behaviour = hold
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(item(1), item(2, timeout=0.1), item(3)))
        await until(lambda: running.predictions.calls == 1)
        await asyncio.sleep(0.3)
        held.set()
        found = await results(stream, 3)
        await stream.done_writing()
        await end_of(stream)
    assert from_status(found[2].error).reason == "DEADLINE_TOO_SHORT"
    [call] = traced.calls
    assert (call.attributes[names.KEPT_FOR], call.attributes[names.ERROR_REASON]) == (names.FAULT, "DEADLINE_TOO_SHORT")
    [wait] = [span for span in traced.all_spans if span.parent and span.parent.span_id == call.context.span_id]
    assert (wait.name, wait.end_time) == (names.ITEM_WAIT, call.start_time)
    assert wait.end_time - wait.start_time >= 0.3e9


async def test_an_item_is_measured_as_a_call():
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving(Telemetry(tracer_provider, MeterProvider([reader]))) as running, running.stub() as stub:
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(item(1), item(2, ""), item(3)))
        await results(stream, 3)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    spans = exporter.get_finished_spans()

    def codes(method):
        found = [span for span in spans if span.name == f"{PREDICTION}/{method}"]
        return sorted(span.attributes[names.RPC_RESPONSE_STATUS_CODE] for span in found)

    assert codes("PredictBuildDuration") == ["INVALID_ARGUMENT", "OK", "OK"]
    assert codes("StreamBuildDurationPredictions") == ["OK"]
    counts = {
        point.attributes[names.RPC_METHOD]: point.count
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == names.RPC_SERVER_CALL_DURATION
        for point in metric.data.data_points
        if point.attributes[names.RPC_RESPONSE_STATUS_CODE] == "OK"
    }
    assert counts == {f"{PREDICTION}/PredictBuildDuration": 2, f"{PREDICTION}/StreamBuildDurationPredictions": 1}
