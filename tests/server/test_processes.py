"""`conductor serve` as people run it: a process, several processes, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager

import grpc
import psutil
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

import ending
from conductor_server import app
from conductor_server.worker import NAME as WORKER_NAME
from machine import within
from rpc.harness import AUDIENCE, ISSUER, Authority, Keys, bearer
from server.harness import client, publish, request, serving, write_features
from server.ports import free_ports

REPLACED_SECONDS = 2.0
GRACE_SECONDS = 3
"""Longer than we may stand still ourselves."""
COMMAND = [sys.executable, "-m", "conductor_client.command", "serve", "-o", "json", "--port", "0"]


@asynccontextmanager
async def command(*arguments, environment=None):
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    errors = bytearray()

    async def drain():
        async for line in process.stderr:
            errors.extend(line)

    draining = asyncio.ensure_future(drain())
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        await asyncio.sleep(0)
        assert line, errors.decode()
        process.address = json.loads(line)["address"]
        process.errors = errors
        yield process
    finally:
        await ending.kill(process)
        await draining


def _arguments(redis_url, store, *more):
    return "--insecure", "--redis-url", redis_url, "--model-store", str(store), *more


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_may_have_all_descriptors_that_the_system_allows(redis_url, store, workers):
    """With the usual 1,024, so many silent connections would leave none, long before there are too many of them."""
    publish(store)
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, most - 1), most))
    try:
        async with command(*_arguments(redis_url, store, "--workers", str(workers), "--grace", "0")) as process:
            started = psutil.Process(process.pid)
            serve = [one for one in started.children(recursive=True) if one.name() == WORKER_NAME] or [started]
            assert [one.rlimit(psutil.RLIMIT_NOFILE) for one in serve] == [(most, most)] * workers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))


async def test_sigterm_drains_without_a_failed_request(redis_url, store):
    publish(store)
    write_features(redis_url)
    async with command(*_arguments(redis_url, store, "--grace", str(GRACE_SECONDS))) as process:
        async with client(process.address) as server:
            first = await server.predict(request(), timeout=30)
            assert first.provenance.model_version
            failures, answers = [], 0
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)

            async def ask():
                nonlocal answers
                while not failures and process.returncode is None:
                    assert time.monotonic() - started < 60
                    try:
                        await server.predict(request(), timeout=30)
                        answers += 1
                    except grpc.aio.AioRpcError as error:
                        failures.append(error)

            await asyncio.gather(*(ask() for _ in range(8)))
            # Served through the grace; after it the process is gone. A call that crosses with the stop on its
            # connection ends CANCELLED; clients retry both (see test_rolling_restarts_fail_no_call).
            assert answers > 10
            assert {error.code() for error in failures} <= {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            }, failures
            assert time.monotonic() - started >= GRACE_SECONDS
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert b"Traceback" not in process.errors, process.errors.decode()


async def test_tls_and_tokens_through_the_command(redis_url, store, tmp_path):
    publish(store)
    authority, keys = Authority(tmp_path), Keys()
    pair = authority.issue("server")
    (tmp_path / "jwks.json").write_text(keys.jwks())
    arguments = [
        *("--redis-url", redis_url, "--model-store", str(store), "--allow-unsigned-models", "--grace", "0"),
        *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
        *("--jwks", str(tmp_path / "jwks.json"), "--issuer", ISSUER, "--audience", AUDIENCE),
    ]
    async with command(*arguments) as process:
        async with grpc.aio.secure_channel(process.address, authority.credentials()) as channel:
            from conductor.prediction.v1 import prediction_service_pb2_grpc

            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            token = keys.token()
            await stub.PredictBuildDuration(request(), metadata=bearer(token), timeout=30)
            for tenant, metadata, code in (
                ("other", bearer(token), grpc.StatusCode.PERMISSION_DENIED),
                ("acme", (), grpc.StatusCode.UNAUTHENTICATED),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.PredictBuildDuration(request(tenant), metadata=metadata, timeout=30)
                assert caught.value.code() is code
        process.terminate()
        await process.wait()
        assert token.encode() not in process.errors, "no token in the log"


async def test_a_killed_worker_is_replaced(redis_url, store):
    publish(store)
    write_features(redis_url)
    async with command(*_arguments(redis_url, store, "--workers", "2", "--grace", "0")) as process:
        before = _workers(process.pid)
        assert len(before) == 2
        async with client(process.address) as server:
            await server.predict(request(), timeout=30)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        while True:
            now = _workers(process.pid)
            if len(now) == 2 and victim not in now:
                break
            assert time.monotonic() - killed < 60
            await asyncio.sleep(0.02)
        assert within(time.monotonic() - killed, REPLACED_SECONDS)
        [new] = now - before
        await _until_listening(new)
        for _ in range(10):
            async with client(process.address) as server:
                answer = await server.predict(request(), timeout=30)
                assert answer.provenance.model_version
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert not any(psutil.pid_exists(pid) for pid in now)


async def test_each_worker_has_admin_ports_of_its_own(redis_url, store):
    publish(store)
    http_port = free_ports(4)
    grpc_port = http_port + 2
    ports = ("--admin-http-port", str(http_port), "--admin-grpc-port", str(grpc_port))
    arguments = _arguments(redis_url, store, "--workers", "2", "--grace", "0", *ports)
    async with command(*arguments) as process:
        asked = 0
        while asked < 200 and not (asked and all([await _counted(http_port + slot) for slot in range(2)])):
            async with client(process.address) as server:  # a connection of its own: the kernel chooses the worker
                await server.predict(request(), timeout=30)
            asked += 1
        assert sum([await _counted(http_port + slot) for slot in range(2)]) == asked, "each counts its own calls"
        for slot in range(2):
            assert (await _get(http_port + slot, "/readyz")).status_code == 200
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port + slot}") as channel:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    with socket.create_server(("127.0.0.1", http_port)), socket.create_server(("127.0.0.1", grpc_port + 1)):
        pass


async def test_ready_when_the_models_were_tried(redis_url, store, monkeypatch):
    port, seen = free_ports(1), []

    class Watcher(app.ModelWatcher):
        async def wait_for_first_pass(self, timeout_seconds):
            seen.extend([(await _get(port, page)).status_code for page in ("/livez", "/readyz")])
            await super().wait_for_first_pass(timeout_seconds)

    monkeypatch.setattr(app, "ModelWatcher", Watcher)
    async with serving(redis_url, store, admin_http_port=port):
        assert seen == [200, 503]
        assert (await _get(port, "/readyz")).status_code == 200


async def _get(port, page):
    return await asyncio.to_thread(requests.get, f"http://127.0.0.1:{port}{page}", timeout=10)


async def _counted(port):
    """Predictions that the worker answered."""
    metrics = (await _get(port, "/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "rpc_server_call_duration_seconds_count"
    )


async def test_workers_do_not_outlive_their_supervisor(redis_url, store):
    async with command(*_arguments(redis_url, store, "--workers", "2", "--grace", "0")) as process:
        workers = _workers(process.pid)
        process.kill()
        await process.wait()
        deadline = time.monotonic() + 60
        while any(psutil.pid_exists(pid) for pid in workers):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_refuses_to_start_without_security(redis_url, store):
    code, errors = await _fails("--redis-url", redis_url, "--model-store", str(store))
    assert code == 2
    assert b"--tls-cert" in errors
    assert b"--insecure" in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_taken_port_is_a_plain_error(redis_url, store, workers):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = _arguments(redis_url, store, "--workers", workers, "--port", port)
        code, errors = await _fails(*arguments)
    assert code == 2
    assert b"port" in errors
    assert b"Traceback" not in errors


async def test_health_is_serving_only_when_models_were_tried(redis_url, store):
    publish(store)
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="conductor.prediction.v1.PredictionService"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert (await server.predict(request())).provenance.model_version


async def _fails(*arguments):
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        await ending.kill(process)
    return process.returncode, errors


def _workers(pid):
    found = set()
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if child.name() == WORKER_NAME:
                found.add(child.pid)
        except psutil.Error:
            continue
    return found


async def _until_listening(pid):
    deadline = time.monotonic() + 60
    while not any(c.status == psutil.CONN_LISTEN for c in psutil.Process(pid).net_connections()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("forked", [0, 1, 2])
async def test_sigterm_while_workers_start_ends_all_of_them(redis_url, store, forked):
    """It comes while the process that they are forked from imports, or right after that has forked some of them."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *_arguments(redis_url, store, "--workers", "2", "--grace", "0"), stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while (found := _forked(process.pid)) is None or found < forked:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        process.send_signal(signal.SIGTERM)
        told, _ = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, told) == (0, b"")
    finally:
        await ending.kill(process)


def _forked(pid):
    """How many workers a supervisor has had forked; None before there is what forks them."""
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if "forkserver" in " ".join(child.cmdline()):
                return len(child.children())
    return None
