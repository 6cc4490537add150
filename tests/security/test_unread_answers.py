"""S8: callers who never read what they are told, by windows of no bytes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import DataFrame, SettingsFrame

from faults.scene import Scene
from security.attacked import channel
from security.raw_http2 import PREFACE, RawConnection

WATCH = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
GRACE_SECONDS, STOP_SECONDS = 2, 30


@contextmanager
def unread_watch(target: str, scene: Scene) -> Iterator[RawConnection]:
    """A watch of health whose caller takes no byte of an answer; of nobody, as it needs no credentials."""
    with RawConnection(target, str(scene.platform.keys.ca_certificate), begun=False) as connection:
        connection.send(PREFACE, SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        connection.send(connection.open(1, connection.headers(WATCH)))
        connection.send(DataFrame(1, b"\0\0\0\0\0", flags=["END_STREAM"]))
        yield connection


async def test_a_watch_that_nobody_reads_keeps_neither_others_from_being_told_nor_the_process_from_stopping(
    scene: Scene,
) -> None:
    async with scene.serving("--grace", str(GRACE_SECONDS)) as process:
        target = process.address  # type: ignore[attr-defined]
        with unread_watch(target, scene), channel(scene, target) as calls:
            stub = health_pb2_grpc.HealthStub(calls)
            await asyncio.to_thread(stub.Check, health_pb2.HealthCheckRequest(), timeout=30)  # the other one has come
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=GRACE_SECONDS + STOP_SECONDS)
            assert (await asyncio.to_thread(next, watch)).status == SERVING
            process.send_signal(signal.SIGTERM)
            assert (await asyncio.to_thread(next, watch)).status == NOT_SERVING
            async with asyncio.timeout(GRACE_SECONDS + STOP_SECONDS):
                assert await process.wait() == 0
            assert not await asyncio.to_thread(list, watch)
