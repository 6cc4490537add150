"""S8: callers who never read what they are told, by windows of no bytes."""

from __future__ import annotations

import asyncio
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from conductor.prediction.v1.build_duration_pb2 import (
    PredictBuildDurationRequest,
    StreamBuildDurationPredictionsItem,
    StreamBuildDurationPredictionsRequest,
)
from faults.scene import Scene
from security.attacked import Attacked, bearer, channel, require_good
from security.callers import ITEMS
from security.raw_http2 import CANCEL, PREDICT, PREFACE, RawConnection

WATCH = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
GRACE_SECONDS, STOP_SECONDS = 2, 30
UNREAD = 10


@contextmanager
def unread(target: str, scene: Scene, path: str, request: Message, tenant_id: str = "") -> Iterator[RawConnection]:
    """A connection of which no byte of an answer is taken, with some calls that have been answered so far."""
    content = request.SerializeToString()
    message = b"\0" + struct.pack(">I", len(content)) + content
    flags = [] if path == ITEMS else ["END_STREAM"]
    with RawConnection(target, str(scene.platform.keys.ca_certificate), begun=False) as connection:
        connection.send(PREFACE, SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        for number in range(UNREAD):
            stream = 1 + 2 * number
            headers = connection.headers(path, bearer(scene, tenant_id) if tenant_id else ())
            connection.send(connection.open(stream, headers), DataFrame(stream, message, flags=flags))
        began = (frame.stream_id for frame in connection.frames(30) if isinstance(frame, HeadersFrame))
        assert {next(began) for _ in range(UNREAD)} == {1 + 2 * number for number in range(UNREAD)}
        yield connection


async def test_watches_that_nobody_reads_keep_neither_others_from_being_told_nor_the_process_from_stopping(
    scene: Scene,
) -> None:
    """Nobody's: health asks for no credentials."""
    async with scene.serving("--grace", str(GRACE_SECONDS)) as process:
        target = process.address  # type: ignore[attr-defined]
        with unread(target, scene, WATCH, health_pb2.HealthCheckRequest()), channel(scene, target) as calls:
            stub = health_pb2_grpc.HealthStub(calls)
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=GRACE_SECONDS + STOP_SECONDS)
            assert (await asyncio.to_thread(next, watch)).status == SERVING
            process.send_signal(signal.SIGTERM)
            assert (await asyncio.to_thread(next, watch)).status == NOT_SERVING
            async with asyncio.timeout(GRACE_SECONDS + STOP_SECONDS):
                assert await process.wait() == 0
            assert not await asyncio.to_thread(list, watch)


@pytest.mark.parametrize("path", [PREDICT, ITEMS])
def test_who_leaves_without_reading_is_no_error_of_ours(scene: Scene, path: str) -> None:
    """Each would be a traceback in the log, and count against the service level."""
    server, question = Attacked(scene.platform.pid("serve")), scene.questions[0]
    request: Message = PredictBuildDurationRequest(tenant_id=question.tenant_id, build=question.build)
    if path == ITEMS:
        item = StreamBuildDurationPredictionsItem(id=1, request=request)
        request = StreamBuildDurationPredictionsRequest(items=[item])
    before, logged = server.held(), len(scene.logs())
    with unread(scene.platform.prediction_target, scene, path, request, question.tenant_id) as connection:
        connection.send(*(RstStreamFrame(1 + 2 * number, error_code=CANCEL) for number in range(UNREAD)))
        connection.heard()
    server.require_back(before, megabytes=50)
    with channel(scene) as calls:
        require_good(scene, calls)
    assert "ERROR" not in scene.logs()[logged:]
