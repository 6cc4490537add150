"""The admin ports: probes and metrics by HTTP, channelz by gRPC."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import grpc
import pytest
import requests
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from conductor_rpc.admin import http_port
from conductor_rpc.exporters import telemetry_from_environment
from conductor_rpc.server import RpcServer
from conductor_rpc.settings import RpcSettings, SettingsInvalid
from conductor_workbench.embedded.redis import free_port
from rpc.harness import PREDICTION, request, serving

ADMIN = {"admin_http_port": 0, "admin_grpc_port": 0}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def telemetry():
    found, close = telemetry_from_environment("test", prometheus=True)
    yield found
    close()


class Meeting:
    """Part of what is scraped: notices whether two scrapes are under way at once."""

    def __init__(self):
        self.took_place = False
        self._both = threading.Barrier(2)

    def collect(self):
        try:
            self._both.wait(0.2)
            self.took_place = True
        except threading.BrokenBarrierError:
            self._both.reset()
        return ()


async def get(port, path, method="GET", **headers):
    return await asyncio.to_thread(
        requests.request, method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=10
    )


def admin_channel(port):
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])


async def test_off_unless_configured():
    async with serving() as running:
        assert (running.server.admin.http_port, running.server.admin.grpc_port) == (0, 0)


async def test_probes_before_serving():
    server = RpcServer(RpcSettings(insecure=True, port=0, grace_seconds=0, **ADMIN), [])
    await server.start_admin()
    port, grpc_port = server.admin.http_port, server.admin.grpc_port
    async with admin_channel(grpc_port) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await get(port, "/livez")).status_code == 200
        answer = await get(port, "/readyz")
        assert (answer.status_code, answer.text) == (503, "not ready\n")
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        await server.start()
        assert (server.admin.http_port, server.admin.grpc_port) == (port, grpc_port)
        answer = await get(port, "/readyz")
        assert (answer.status_code, answer.text) == (200, "ok\n")
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        await server.stop()


async def test_probes_while_draining():
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(_):
        entered.set()
        await release.wait()

    async with serving(drain_seconds=30, **ADMIN) as running, running.stub() as stub:
        running.predictions.behaviour = wait
        port, grpc_port = running.server.admin.http_port, running.server.admin.grpc_port
        held = asyncio.ensure_future(_answer(stub))
        await entered.wait()
        assert (await get(port, "/readyz")).status_code == 200
        stopping = asyncio.ensure_future(running.server.stop())
        await asyncio.sleep(0)  # it begins, and is held up by the call until we let go of that
        async with admin_channel(grpc_port) as channel:
            assert (await get(port, "/readyz")).status_code == 503
            assert (await get(port, "/livez")).status_code == 200
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        assert not stopping.done()
        release.set()
        await asyncio.gather(held, stopping)


async def test_other_pages_and_methods():
    async with serving(**ADMIN) as running:
        port = running.server.admin.http_port
        assert (await get(port, "/")).status_code == 404
        assert (await get(port, "/metrics")).status_code == 404, "nobody keeps metrics for it"
        answer = await get(port, "/livez", "POST")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        answer = await get(port, "/livez", "HEAD")
        assert (answer.status_code, answer.content) == (200, b"")
        assert "server" not in answer.headers


async def test_metrics_are_those_of_opentelemetry(telemetry):
    async with serving(telemetry, **ADMIN) as running, running.stub() as stub:
        for _ in range(3):
            await stub.PredictBuildDuration(request())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictBuildDuration(request(change={"added_line_count": -1}))
        meeting = Meeting()
        telemetry.registry.register(meeting)
        answers = await asyncio.gather(*(get(running.server.admin.http_port, "/metrics") for _ in range(3)))
        assert not meeting.took_place, "of two scrapes at once, one would get what the other one collected"
        for answer in answers:
            assert answer.headers["content-type"].startswith("text/plain; version=")
            assert _counts(answer.text) == {"OK": 3, "INVALID_ARGUMENT": 1}
            assert "process_resident_memory_bytes" in answer.text
            assert 'service_name="test"' in answer.text
            assert "acme" not in answer.text, "no tenant in a label"
        openmetrics = await get(running.server.admin.http_port, "/metrics", accept="application/openmetrics-text")
        assert openmetrics.text.endswith("# EOF\n")


async def test_channelz_health_and_reflection():
    # By number: channelz tells the port that was asked for.
    async with serving(port=free_port(), admin_grpc_port=free_port()) as running, running.stub() as stub:
        await stub.PredictBuildDuration(request())
        async with admin_channel(running.server.admin.grpc_port) as channel:
            servers = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest())
            listening = {at.name.rpartition(":")[2]: found for found in servers.server for at in found.listen_socket}
            assert {str(running.server.port), str(running.server.admin.grpc_port)} <= set(listening)
            assert listening[str(running.server.port)].data.calls_succeeded >= 1
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest(service=PREDICTION))).status == SERVING
            reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            [answer] = [a async for a in reflect(iter([asked]))]
            names = {service.name for service in answer.list_services_response.service}
            assert {"grpc.channelz.v1.Channelz", "grpc.health.v1.Health"} <= names
            assert PREDICTION not in names, "predictions are asked for on the main port only"


async def test_ports_are_free_again_after_the_stop(telemetry):
    """Also where somebody holds a connection open, and without waiting for them."""
    async with serving(telemetry, **ADMIN, drain_seconds=60) as running:
        ports = running.server.admin.http_port, running.server.admin.grpc_port
        held = await asyncio.open_connection("127.0.0.1", ports[0])
        watching = admin_channel(ports[1])
        watch = health_pb2_grpc.HealthStub(watching).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        started = time.monotonic()
    assert time.monotonic() - started < 30
    held[1].close()
    await watching.close()
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
    async with serving(admin_http_port=ports[0], admin_grpc_port=ports[1]) as running:
        assert (running.server.admin.http_port, running.server.admin.grpc_port) == ports


@pytest.mark.parametrize("setting", ["admin_http_port", "admin_grpc_port"])
async def test_a_taken_port_is_told_and_nothing_is_left_open(setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {"port": 0, "insecure": True, **ADMIN, setting: taken.getsockname()[1]}
        server = RpcServer(RpcSettings(**settings), [])
        with pytest.raises(SettingsInvalid, match=setting):
            await server.start()
        assert (server.admin.http_port, server.admin.grpc_port) == (0, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET /livez HTTP/1.1\r\n" + b"x: " + b"y" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" * 1000 + b"nonsense\r\n\r\n",
    ],
    ids=["tls", "large-header", "http2", "nonsense"],
)
async def test_bad_requests_are_harmless(content):
    async with serving(**ADMIN) as running:
        port = running.server.admin.http_port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(content)
        answer = b""
        try:
            async with asyncio.timeout(30):
                answer = await reader.read()  # to the end: the connection is closed on whoever talks like this
        except ConnectionError:
            pass
        assert answer == b"" or answer.startswith(b"HTTP/1.1 40")
        writer.close()
        assert (await get(port, "/livez")).status_code == 200


async def test_silent_connections_are_closed(monkeypatch):
    monkeypatch.setattr(http_port, "_CONNECTION_SECONDS", 0.2)
    async with serving(**ADMIN) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.server.admin.http_port)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionError):
                assert await reader.read() == b""
                raise ConnectionError
        writer.close()


async def _answer(stub):
    return await stub.PredictBuildDuration(request())


def _counts(text):
    """Calls by status code."""
    [family] = [f for f in text_string_to_metric_families(text) if f.name == "rpc_server_call_duration_seconds"]
    counts = {}
    for sample in family.samples:
        if sample.name.endswith("_count"):
            code = sample.labels["rpc_response_status_code"]
            counts[code] = counts.get(code, 0) + sample.value
    return counts
