"""Start, serve, stop; health and reflection."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor_rpc.settings import RpcSettings, SettingsInvalid
from rpc.harness import EVENTS, PREDICTION, bearer, failure, request, serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_needs_no_token_and_tells_each_service(secure, authority):
    async with serving(**secure) as running, running.channel(authority.credentials()) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", PREDICTION, EVENTS):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        told = (await health.List(health_pb2.HealthListRequest())).statuses
        assert {service: one.status for service, one in told.items()} == dict.fromkeys(
            ("", PREDICTION, EVENTS), SERVING
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services_to_who_may_call_them(secure, keys, authority):
    async with serving(**secure) as running, running.channel(authority.credentials()) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [a async for a in reflect(iter([asked]), metadata=bearer(keys.token()))]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {PREDICTION, EVENTS, "grpc.health.v1.Health"} <= names
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflect().read()  # nothing written: a write that crosses the refusal would hide it (grpc/grpc#36066)
        assert failure(caught.value).reason == "CREDENTIALS_INVALID"


async def test_unknown_methods():
    async with serving() as running, running.channel() as channel:
        for method in (f"/{PREDICTION}/NoSuchMethod", "/no.such.Service/Method"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_stop_drains():
    """NOT_SERVING at once, new calls served for the grace, calls under way ended, watches ended."""
    release = asyncio.Event()

    async def wait(_):
        await release.wait()

    async with serving(grace_seconds=2, drain_seconds=60) as running, running.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=PREDICTION))
        assert (await watch.read()).status == SERVING
        async with running.stub() as stub:
            running.predictions.behaviour = wait
            held = asyncio.ensure_future(_answer(stub))
            await _until(lambda: running.server.in_flight_count == 1)
            started = time.monotonic()
            stopping = asyncio.ensure_future(running.server.stop())
            assert (await watch.read()).status == NOT_SERVING
            running.predictions.behaviour = None
            await stub.PredictBuildDuration(request())  # within the grace
            assert not stopping.done()
            release.set()
            await held
            await stopping
            assert time.monotonic() - started < 40, "an open watch must not hold up the drain"
            assert await watch.read() is grpc.aio.EOF
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.PredictBuildDuration(request())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_taken_port_is_told():
    async with serving() as running:
        with pytest.raises(SettingsInvalid, match="port"):
            async with serving(port=running.server.port):
                pass


def test_precedence_of_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conductor.toml").write_text('port = 1\nhost = "a"\nissuer = "file"\n')
    monkeypatch.setenv("CONDUCTOR_PORT", "2")
    monkeypatch.setenv("CONDUCTOR_HOST", "b")
    settings = RpcSettings.from_flags(port=3, host=None)
    assert (settings.port, settings.host, settings.issuer, settings.grace_seconds) == (3, "b", "file", 1.0)


def test_every_setting_is_documented():
    assert all(field.description for field in RpcSettings.model_fields.values())


async def test_rolling_restarts_fail_no_call():
    """Servers that share a port are replaced one after the other under load, and no call fails.

    A call that crosses with the stop on its connection ends CANCELLED (gRPC gives it no other end), so a client must
    retry that as it does UNAVAILABLE; a prediction changes nothing, so asking twice is safe.
    """
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.02s",
        "maxBackoff": "0.2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with AsyncExitStack() as stack:
        current = await stack.enter_async_context(serving(share_port=True))
        port = current.server.port
        channel = grpc.aio.insecure_channel(current.target, options=[("grpc.service_config", config)])
        stub = PredictionServiceStub(await stack.enter_async_context(channel))
        stopped = asyncio.Event()
        asked = 0

        async def ask():
            nonlocal asked
            while not stopped.is_set():
                await stub.PredictBuildDuration(request(), timeout=30)
                asked += 1

        asking = [asyncio.ensure_future(ask()) for _ in range(4)]
        for _ in range(5):
            following = await stack.enter_async_context(serving(share_port=True, port=port))
            seen = asked
            await _until(lambda seen=seen: asked > seen + 20)
            await current.server.stop()
            current = following
        stopped.set()
        await asyncio.gather(*asking)
        assert asked > 100


async def _until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def _answer(stub):
    return await stub.PredictBuildDuration(request())
