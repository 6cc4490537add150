"""Publishing events: in batches, and with the server's refusal told."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from client.conftest import Refusal
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_client import (
    ConductorClient,
    ErrorReason,
    PermissionDenied,
)

BUILD = {"repository": "octocat/hello", "pipeline": "ci"}


def event(number: int, size: int = 0) -> CloudEvent:
    return CloudEvent(id=str(number), source="s", type="build.completed", text_data="x" * size)


async def test_events_are_published_in_batches(connect, conductor):
    async with connect() as client:
        published = await client.publish_events("acme", (event(number) for number in range(2500)))
    assert (published.received, published.stored, published.duplicates, published.dead_lettered) == (2500, 2498, 1, 1)
    assert published.dead_letters[0].reason == "no type"
    [messages] = conductor.requests
    assert [len(message.events) for message in messages] == [1000, 1000, 500]
    assert {message.tenant_id for message in messages} == {"acme"}
    assert [item.id for message in messages for item in message.events] == [str(number) for number in range(2500)]


async def test_large_events_travel_in_small_batches(connect, conductor):
    async with connect() as client:
        await client.publish_events("acme", (event(number, 700_000) for number in range(5)))
    assert [len(message.events) for message in conductor.requests[0]] == [1, 1, 1, 1, 1]


async def test_publishing_reports_the_servers_refusal_whenever_it_comes(connect, conductor):
    info = ErrorInfo(reason="TENANT_MISMATCH", domain="conductor")
    async with connect() as client:
        for _ in range(40):  # gRPC hides the status when it comes while a batch is being written: a matter of luck
            conductor.refusals = [Refusal(grpc.StatusCode.PERMISSION_DENIED, "no", (info,))]
            with pytest.raises(PermissionDenied) as caught:
                await client.publish_events("acme", (event(number, 300) for number in range(10_000)))
            assert caught.value.reason is ErrorReason.TENANT_MISMATCH


async def test_an_error_of_the_callers_own_events_reaches_the_caller(connect, conductor):
    def broken():
        yield from map(event, range(1500))
        raise OSError("the file ended")

    async with connect() as client:
        with pytest.raises(OSError, match="the file ended"):
            await client.publish_events("acme", broken())
        assert (await client.predict_build_duration("acme", **BUILD)).prediction_id == "p1"


async def test_async_events(conductor):
    async def events():
        for number in range(1001):
            yield event(number)

    async with ConductorClient.connect(conductor.target, insecure=True) as client:
        assert (await client.publish_events("acme", events())).received == 1001
