"""How streams of items end: by their caller, with their credentials, at a stop, by a message that can not be taken."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from rpc.harness import PREDICTION, Keys, bearer, failure, item, items, request, serving
from rpc.item_streams import end_of, results, until

METHOD = f"/{PREDICTION}/StreamBuildDurationPredictions"


async def test_a_cancelled_stream_takes_its_items_along(caplog):
    cancelled = 0

    async def hold(_):
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with serving() as running, running.stub() as stub:
        running.predictions.behaviour = hold
        before = len(asyncio.all_tasks())
        stream = stub.StreamBuildDurationPredictions()
        await stream.write(items(item(1), item(2)))
        await until(lambda: running.predictions.calls == 2)
        stream.cancel()
        await until(lambda: cancelled == 2 and running.server.in_flight_count == 0)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        running.predictions.behaviour = None
        for _ in range(100):  # while answers are being written
            stream = stub.StreamBuildDurationPredictions()
            await stream.write(items(*(item(number) for number in range(50))))
            await stream.read()
            await stream.write(items(*(item(number) for number in range(50, 100))))
            stream.cancel()
        await until(lambda: running.server.in_flight_count == 0 and len(asyncio.all_tasks()) <= before)
    assert not [record for record in caplog.records if record.name.startswith("conductor")]


async def test_a_stream_ends_with_its_token(secure, keys, authority):
    """What was read is answered; then the same error as for a call with that token."""
    held = asyncio.Event()

    async def hold(message):
        if message.build.branch == "held":
            await held.wait()

    settings = {**secure, "token_leeway_seconds": 0, "default_deadline_seconds": 60}
    async with serving(**settings) as running, running.stub(authority.credentials()) as stub:
        running.predictions.behaviour = hold
        token = bearer(keys.token(exp=int(time.time()) + 3))
        busy, idle = (stub.StreamBuildDurationPredictions(metadata=token) for _ in range(2))
        await busy.write(items(item(1, branch="held")))
        await idle.write(items(item(1)))
        assert (await results(idle, 1))[1].HasField("response")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(idle)
        assert failure(caught.value).reason == "CREDENTIALS_INVALID"
        held.set()
        assert (await results(busy, 1))[1].HasField("response")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(busy)
        found = failure(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictBuildDuration(request(), metadata=token)


async def test_a_stream_ends_when_its_key_is_withdrawn(secure, keys, authority):
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        stream = stub.StreamBuildDurationPredictions(metadata=bearer(keys.token()))
        await stream.write(items(item(1)))
        await results(stream, 1)
        await asyncio.to_thread(Path(secure["jwks"]).write_text, Keys("another").jwks())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            for number in range(2, 100):  # the file is looked at every second
                await stream.write(items(item(number)))
                await results(stream, 1)
                await asyncio.sleep(0.05)
        assert failure(caught.value).reason == "CREDENTIALS_INVALID"


async def test_without_a_token_there_is_no_stream(secure, authority):
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(stub.StreamBuildDurationPredictions())
        assert failure(caught.value).reason == "CREDENTIALS_INVALID"


async def test_at_a_stop_what_was_read_is_answered_and_nothing_holds_it_up():
    held = asyncio.Event()

    async def hold(_):
        await held.wait()

    async with serving(drain_seconds=60) as running, running.stub() as stub:
        busy, idle = stub.StreamBuildDurationPredictions(), stub.StreamBuildDurationPredictions()
        await idle.write(items(item(1)))
        await results(idle, 1)
        running.predictions.behaviour = hold
        await busy.write(items(item(1), item(2)))
        await until(lambda: running.predictions.calls == 3)
        started = time.monotonic()
        stopping = asyncio.ensure_future(running.server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(idle)
        assert failure(caught.value).reason == "STOPPING"
        assert not stopping.done()
        await busy.write(items(item(3)))  # too late
        held.set()
        assert set(await results(busy, 2)) == {1, 2}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(busy)
        found = failure(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
        await stopping
        assert time.monotonic() - started < 30
        assert running.predictions.calls == 3


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\xff", "INVALID_FIELD"),
        (items(item(1)).SerializeToString()[:-1], "INVALID_FIELD"),
        (items().SerializeToString(), "INVALID_FIELD"),
        (items(item(2), item(2)).SerializeToString(), "INVALID_FIELD"),
        (items(item(2), item(1)).SerializeToString(), "INVALID_FIELD"),
        (items(*(item(number) for number in range(2, 1027))).SerializeToString(), "BATCH_TOO_LARGE"),
    ],
    ids=["undecodable", "cut off", "empty", "an id twice", "an id under way", "too many"],
)
async def test_a_message_that_can_not_be_taken_ends_the_stream(message, reason):
    """After the results of what was read before."""
    held = asyncio.Event()

    async def hold(_):
        await held.wait()

    async with serving() as running, running.channel() as channel:
        running.predictions.behaviour = hold
        stream = channel.stream_stream(METHOD)()
        await stream.write(items(item(1)).SerializeToString())
        await stream.write(message)
        await until(lambda: running.predictions.calls == 1)
        await asyncio.sleep(0.05)
        held.set()
        result = type(items()).FromString(await stream.read())  # the ids stand at the same place
        assert [one.id for one in result.items] == [1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end_of(stream)
        found = failure(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
        assert found.fields
        assert running.predictions.calls == 1
        await until(lambda: running.server.in_flight_count == 0)
