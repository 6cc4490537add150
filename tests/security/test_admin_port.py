"""S1, S8 on the admin port: who holds its connections open keeps no probe out."""

from __future__ import annotations

import asyncio
import contextlib
import random

import psutil
import pytest
import requests

from conductor_rpc.admin import http_port
from faults.scene import until
from rpc.harness import serving
from security.attacked import inside

ADMIN = {"admin_http_port": 0, "admin_grpc_port": 0}
HELD = 100


async def probe(port: int) -> int:
    answer = await asyncio.to_thread(requests.get, f"http://127.0.0.1:{port}/livez", timeout=30)
    return answer.status_code


async def held_open(port: int, count: int, content: bytes) -> list[asyncio.StreamWriter]:
    """Connections that say something, and then nothing more."""
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(content)
        writers.append(writer)
    return writers


async def refused_probes(port: int) -> int:
    """How many of some probes fail while hundreds of connections are held open."""
    refused = 0
    for content in (b"", b"G", b"GET /livez HTTP/1.1\r\nx: "):
        writers = await held_open(port, HELD, content)
        for _ in range(2):
            try:
                refused += await probe(port) != 200
            except requests.RequestException:
                refused += 1
        for writer in writers:
            writer.close()
    return refused


async def test_a_probe_is_answered_beside_hundreds_of_connections_held_open() -> None:
    async with serving(**ADMIN) as running:
        port = running.server.admin.http_port
        assert await probe(port) == 200
        before = psutil.Process().num_fds()
        assert await refused_probes(port) == 0
        await until(lambda: psutil.Process().num_fds() <= before + 2, 60, "descriptors are back")


async def test_the_check_finds_a_port_that_refuses_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: connections are only ever refused, so whoever was there first stays."""
    monkeypatch.setattr(http_port._Connection, "connection_made", http_port.H11Protocol.connection_made)
    monkeypatch.setattr(http_port._Connection, "connection_lost", http_port.H11Protocol.connection_lost)
    async with serving(**ADMIN) as running:
        assert await refused_probes(running.server.admin.http_port) > 0


async def test_garbage_gets_no_more_than_a_refusal() -> None:
    chance = random.Random(7)
    valid = b"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n"
    async with serving(**ADMIN) as running:
        port = running.server.admin.http_port
        for _ in range(150):
            content = bytearray(valid)
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(content))
                content[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(6))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes(content))
            answer = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.02):
                    answer = await reader.read(65536)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
            assert not inside(answer.decode("latin-1")), answer
            writer.close()
        assert await probe(port) == 200
