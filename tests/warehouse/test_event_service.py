"""Events come in by gRPC, are acknowledged after their commit, and only for the caller's own tenant."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psycopg
import pytest
from google.rpc import error_details_pb2, status_pb2

import ending
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor_warehouse import schema
from conductor_warehouse.app import EventServiceSettings, application
from conductor_warehouse.events import Event, parse
from conductor_warehouse.schema import SchemaMismatch
from conductor_warehouse.settings import WarehouseSettings
from conductor_workbench.embedded import EmbeddedPostgres
from rpc.harness import Authority, Keys, ended
from rpc.secured import secured
from warehouse.histories import START, Build, assert_log_is_right, completed_event, events_of, random_history

BUILDS = random_history(seed=60, count=60, tenants=("acme",))


def _cloud_event(line: bytes) -> CloudEvent:
    event = parse(line)
    assert isinstance(event, Event)
    message = CloudEvent(id=event.event_id, source=event.source, type=event.type, tenant_id=event.tenant_id)
    message.time.FromDatetime(event.time)
    message.proto_data.Pack(event.data)
    return message


EVENTS = [_cloud_event(line) for line in events_of(BUILDS)]
PATIENT = 30.0
"""Seconds; a busy machine may stand still for some."""
INSECURE = {"port": 0, "insecure": True, "grace_seconds": 0}


def _requests(events: list[CloudEvent], size: int = 25, tenant: str = "acme") -> list[PublishEventsRequest]:
    return [
        PublishEventsRequest(tenant_id=tenant, events=events[begin : begin + size])
        for begin in range(0, len(events), size)
    ]


@asynccontextmanager
async def serving(database_url: str, publish_timeout_seconds: float = PATIENT, **settings: Any) -> AsyncIterator[str]:
    warehouse_settings = WarehouseSettings(database_url=database_url, publish_timeout_seconds=publish_timeout_seconds)
    async with application(EventServiceSettings(**settings), warehouse_settings) as server:
        yield f"127.0.0.1:{server.port}"


async def _publish(
    channel: grpc.aio.Channel, requests: Iterable[PublishEventsRequest], token: str | None = None
) -> PublishEventsResponse:
    async def stream() -> AsyncIterator[PublishEventsRequest]:
        for request in requests:
            yield request

    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    response: PublishEventsResponse = await ended(
        EventServiceStub(channel).PublishEvents(stream(), metadata=metadata, timeout=60)
    )
    return response


async def _publish_in_the_end(channel: grpc.aio.Channel, requests: list[PublishEventsRequest]) -> PublishEventsResponse:
    """As a client would: again, while the warehouse does not answer."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await _publish(channel, requests)
        except grpc.aio.AioRpcError as error:
            assert _reason(error) == (grpc.StatusCode.UNAVAILABLE, "WAREHOUSE_UNAVAILABLE")
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


def _reason(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.code(), info.reason


async def test_a_stream_is_stored_and_repeating_it_changes_nothing(warehouse_url: str) -> None:
    broken = CloudEvent(id="broken", source="/ci", tenant_id="acme")
    async with serving(warehouse_url, **INSECURE) as target, grpc.aio.insecure_channel(target) as channel:
        response = await _publish(channel, _requests([*EVENTS, broken, EVENTS[0]]))
        assert (response.received_count, response.stored_count) == (len(EVENTS) + 2, len(EVENTS))
        assert (response.duplicate_count, response.dead_letter_count) == (1, 1)
        [letter] = response.dead_letters
        assert (letter.event_id, letter.event_source) == ("broken", "/ci")
        assert "type: is required" in letter.reason
        assert letter.HasField("dead_letter_time")
        response = await _publish(channel, _requests(EVENTS))
        assert (response.stored_count, response.duplicate_count) == (0, len(EVENTS))
        assert (await _publish(channel, [])).received_count == 0
    with psycopg.connect(warehouse_url) as connection:
        assert_log_is_right(connection, BUILDS)


async def test_another_tenants_event_is_refused_with_its_batch(warehouse_url: str) -> None:
    stranger = _cloud_event(completed_event(replace(BUILDS[0], tenant="globex", completed=START, queued=START)))
    async with serving(warehouse_url, **INSECURE) as target, grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _publish(channel, _requests([*EVENTS[:5], stranger]))
        assert _reason(refused.value) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISMATCH")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _publish(channel, [PublishEventsRequest(tenant_id="acme", events=[EVENTS[0]] * 1001)])
        assert _reason(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _publish(channel, [PublishEventsRequest()])
        assert _reason(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    with psycopg.connect(warehouse_url) as connection:
        assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (0,)


async def test_a_token_is_for_its_own_tenant_only(warehouse_url: str, tmp_path: Path) -> None:
    keys, authority = Keys(), Authority(tmp_path)
    secure = {"port": 0, "grace_seconds": 0, **secured(tmp_path, keys, authority)}
    credentials = authority.credentials()
    async with serving(warehouse_url, **secure) as target, grpc.aio.secure_channel(target, credentials) as channel:
        assert (await _publish(channel, _requests(EVENTS), keys.token("acme"))).stored_count == len(EVENTS)
        for token, expected in (
            (keys.token("globex"), (grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISMATCH")),
            (None, (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _publish(channel, _requests(EVENTS), token)
            assert _reason(refused.value) == expected


async def test_a_database_that_is_down_is_unavailable_and_the_service_recovers(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", keep=False) as server:
        url = server.create_database("service")
        schema.migrate(url)
        async with serving(url, 2, **INSECURE) as target, grpc.aio.insecure_channel(target) as channel:
            assert (await _publish_in_the_end(channel, _requests(EVENTS[:20]))).stored_count == 20
            server.kill()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _publish(channel, _requests(EVENTS[20:]))
            assert _reason(refused.value) == (grpc.StatusCode.UNAVAILABLE, "WAREHOUSE_UNAVAILABLE")
            server.start()
            response = await _publish_in_the_end(channel, _requests(EVENTS))
            assert response.stored_count + response.duplicate_count == len(EVENTS)
        with psycopg.connect(url) as connection:
            assert_log_is_right(connection, BUILDS)


async def test_it_does_not_start_on_a_database_without_its_schema(database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="migrate"):
        async with serving(database_url, **INSECURE):
            pass


async def test_the_command_serves_until_sigterm(warehouse_url: str) -> None:
    command = [sys.executable, "-m", "conductor_client.command", "warehouse", "serve"]
    environment = os.environ | {"CONDUCTOR_DATABASE_URL": warehouse_url}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    command += ["--insecure", "--port", "0", "--grace", "0", "-o", "json"]
    with ending.process(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        target = json.loads(process.stdout.readline())["address"]
        async with grpc.aio.insecure_channel(target) as channel:
            build = Build("b1", START, START, duration=1.0)
            assert (await _publish(channel, _requests([_cloud_event(completed_event(build))]))).stored_count == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
