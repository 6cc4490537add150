"""S2: what is small on the wire and large when it is opened, and what is large all along."""

from __future__ import annotations

import asyncio
import gzip
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import grpc
import psutil
import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame

from conductor.build.v1.build_context_pb2 import BuildContext, ChangeSet
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor.model.v1.model_service_pb2 import PromoteModelRequest
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    PredictBuildDurationRequest,
    StreamBuildDurationPredictionsRequest,
)
from conductor.testing.v1.test_run_pb2 import TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_rpc import onion, rules
from faults.scene import Scene
from machine import within
from rpc.harness import serving
from security.attacked import ATTACK_SECONDS, Attacked, bearer, channel, require_good, undocumented
from security.raw_http2 import PREDICT, RawConnection

MEGABYTES, SECONDS = 10.0, 0.010
BATCH = PREDICT.replace("PredictBuildDuration", "BatchPredictBuildDurations")
STREAM = PREDICT.replace("PredictBuildDuration", "StreamBuildDurationPredictions")
SELECT = "/conductor.testing.v1.TestIntelligenceService/SelectTests"
INFER, PUBLISH = "/inference.GRPCInferenceService/ModelInfer", "/conductor.events.v1.EventService/PublishEvents"
TENANT = "tenant-000"
ROOM = 4 * 1024 * 1024 - 64
"""What a message may have, nearly."""


def part(number: int, content: bytes) -> bytes:
    """A field of bytes, or of a message."""
    found, length = bytearray(_varint(number << 3 | 2)), len(content)
    return bytes(found + _varint(length)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def number(message: type, field: str) -> int:
    return message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]


def empties(message: type, field: str, size: int = ROOM) -> bytes:
    """Nothing but empty items of a list: 10⁶ rows and more."""
    item = part(number(message, field), b"")
    return item * (size // len(item))


_EXTENSIONS = part(
    number(PredictBuildDurationRequest, "build"),
    part(number(BuildContext, "change"), empties(ChangeSet, "file_extensions", ROOM - 64)),
)
_SHAPE = part(
    number(ModelInferRequest, "inputs"), part(number(ModelInferRequest.InferInputTensor, "shape"), bytes(ROOM - 64))
)
_TESTS, _FILES = (
    part(number(SelectTestsRequest, "run"), empties(TestRunContext, field, ROOM - 64))
    for field in ("test_ids", "changed_files")
)
BOMBS: dict[str, tuple[str, bytes]] = {
    "requests": (BATCH, empties(BatchPredictBuildDurationsRequest, "requests")),
    "items": (STREAM, empties(StreamBuildDurationPredictionsRequest, "items")),
    "tensors": (INFER, empties(ModelInferRequest, "inputs")),
    "parameters": (INFER, empties(ModelInferRequest, "parameters")),
    "contents": (INFER, empties(ModelInferRequest, "raw_input_contents")),
    "dimensions": (INFER, _SHAPE),
    "nested": (PREDICT, _EXTENSIONS),
    "tests": (SELECT, _TESTS),
    "files": (SELECT, _FILES),
    "unknown": (PREDICT, part(1000, b"") * (ROOM // 3)),
    "again": (PREDICT, empties(PredictBuildDurationRequest, "build")),
    "groups": (PREDICT, b"\x0b" * ROOM),
}
EVENT_ROOM = (8 if ATTACK_SECONDS else 2) * ROOM


@dataclass(frozen=True)
class Refusal:
    seconds: float
    megabytes: float
    since: float = field(default_factory=time.monotonic)
    """When it, or the first of several, was seen."""


def refusals(calls: grpc.Channel, server: Attacked, method: str, content: bytes, metadata: Any) -> Iterator[Refusal]:
    """What a refusal takes, again and again."""
    while True:
        with server.peak() as grown:
            began = time.perf_counter()
            with pytest.raises(grpc.RpcError) as refused:
                calls.unary_unary(method)(content, timeout=30, metadata=metadata)
            seconds = time.perf_counter() - began
            assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert not undocumented(refused.value)
            cost = Refusal(seconds, grown())
        yield cost


def least(found: Iterable[Refusal]) -> Refusal:
    """What the work takes, without what others on the machine add to it."""
    seen = list(found)
    return Refusal(*(min(getattr(one, name) for one in seen) for name in ("seconds", "megabytes", "since")))


def beyond(calm: Iterator[Refusal], bombs: Iterator[Refusal]) -> Refusal:
    """What a bomb takes more than as many harmless bytes, of up to 64 by turns.

    By turns, so that others on the machine are in both. The least time of many is what the work itself takes. Of memory
    it is the median: what is given back a little late makes a single growth too small.
    """
    harmless: list[Refusal] = []
    seen: list[Refusal] = []
    began = time.monotonic()
    for pair in islice(zip(calm, bombs, strict=True), 64):
        harmless.append(pair[0])
        seen.append(pair[1])
        one, other = least(harmless), least(seen)
        grown = statistics.median(r.megabytes for r in seen) - statistics.median(r.megabytes for r in harmless)
        cost = Refusal(other.seconds - one.seconds, grown, other.since)
        # What the machine lost is allowed for only at the end: more turns tell more.
        quick = cost.megabytes <= MEGABYTES and cost.seconds <= SECONDS
        if quick or (len(seen) >= 16 and time.monotonic() - began > 10):
            break
    return cost


def cheap(cost: Refusal) -> bool:
    return cost.megabytes <= MEGABYTES and within(cost.seconds, SECONDS, cost.since, share=0.0)


@pytest.mark.timeout(300)
def test_bombs_cost_no_more_than_their_bytes(scene: Scene, figure: Callable[..., None]) -> None:
    """Compared with a message of the same size that is refused for one text that is too long."""
    server, metadata = Attacked(scene.platform.pid("serve")), bearer(scene, TENANT)
    with channel(scene) as calls:
        long = PredictBuildDurationRequest(tenant_id=TENANT, build={"repository": "r" * (ROOM - 64), "pipeline": "ci"})
        calm = refusals(calls, server, PREDICT, long.SerializeToString(), metadata)
        least(islice(calm, 4))  # warm
        found = {}
        for name, (method, content) in BOMBS.items():
            tenant = b"" if method in (INFER, STREAM) else part(1, TENANT.encode())
            found[name] = beyond(calm, refusals(calls, server, method, tenant + content, metadata))
        figure(
            calm_ms=least(islice(calm, 4)).seconds * 1e3,
            slowest_beyond_ms=max(cost.seconds for cost in found.values()) * 1e3,
            most_beyond_mb=max(cost.megabytes for cost in found.values()),
        )
        assert all(map(cheap, found.values())), found
        require_good(scene, calls)


def test_a_bomb_of_events(scene: Scene, figure: Callable[..., None]) -> None:
    """Batches of events may be larger: up to 32 MiB."""
    server, metadata = Attacked(scene.platform.pid("warehouse-serve")), bearer(scene, TENANT)
    with channel(scene, scene.platform.events_target) as calls:
        long = part(1, TENANT.encode()) + part(number(PublishEventsRequest, "tenant_id"), b"t" * EVENT_ROOM)
        bomb = empties(PublishEventsRequest, "events", EVENT_ROOM)
        calm = refusals(calls, server, PUBLISH, long, metadata)
        least(islice(calm, 3))  # warm
        cost = beyond(calm, refusals(calls, server, PUBLISH, part(1, TENANT.encode()) + bomb, metadata))
        figure(beyond_ms=cost.seconds * 1e3, beyond_mb=cost.megabytes)
        assert cheap(cost)


def compressed(connection: RawConnection, stream: int, content: bytes, more: Any) -> list[str]:
    """The codes that a call with a compressed message ends with."""
    body = b"\x01" + len(content).to_bytes(4, "big") + content
    frames: list[bytes | Frame] = [
        connection.open(stream, connection.headers(more=[("grpc-encoding", "gzip"), *more])),
        *(DataFrame(stream, body[at : at + 16_384]) for at in range(0, len(body), 16_384)),
        DataFrame(stream, flags=["END_STREAM"]),
    ]
    connection.send(*frames)
    codes = []
    for frame in connection.frames(10):
        if isinstance(frame, HeadersFrame):
            codes += [value for name, value in connection.decoder.decode(frame.data) if name == "grpc-status"]
        if frame.stream_id == stream and codes:
            break
    return codes


def test_compression_bombs(scene: Scene, figure: Callable[..., None]) -> None:
    """What is some kilobytes on the wire is refused beyond 4 MiB when it is opened, and is not opened further.

    Compared with the largest message that is opened.
    """
    server, metadata = Attacked(scene.platform.pid("serve")), bearer(scene, TENANT)
    largest, bomb = gzip.compress(part(1, bytes(ROOM))), gzip.compress(part(1, bytes(48 << 20)))
    assert len(bomb) < 60_000
    with RawConnection(scene.platform.prediction_target, str(scene.platform.keys.ca_certificate)) as connection:
        streams = iter(range(1, 1000, 2))

        def asked(content: bytes, code: grpc.StatusCode) -> Iterator[Refusal]:
            while True:
                with server.peak() as grown:
                    began = time.perf_counter()
                    assert compressed(connection, next(streams), content, metadata) == [str(code.value[0])]
                    cost = Refusal(time.perf_counter() - began, grown())
                yield cost

        calm = asked(largest, grpc.StatusCode.PERMISSION_DENIED)
        least(islice(calm, 4))  # warm
        cost = beyond(calm, asked(bomb, grpc.StatusCode.RESOURCE_EXHAUSTED))
    figure(beyond_ms=cost.seconds * 1e3, beyond_mb=cost.megabytes)
    assert cheap(cost)
    with channel(scene) as calls:
        require_good(scene, calls)


def test_nesting_is_bounded() -> None:
    """Messages within messages; JSON within events is in ``test_numbers_and_text.py``."""
    content = b""
    for _ in range(20_000):
        content = part(2, content)
    for kind in (PredictBuildDurationRequest, ModelInferRequest, PublishEventsRequest, PromoteModelRequest):
        assert isinstance(onion._tolerant(kind.FromString)(content), (Exception, kind))


async def test_the_check_finds_a_server_without_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: the message is decoded, and only then found to be too large."""
    monkeypatch.setattr(rules, "require_bounds", lambda content, kind: None)
    content = part(1, b"acme") + empties(BatchPredictBuildDurationsRequest, "requests", ROOM // 2)
    server = Attacked(psutil.Process().pid)
    async with serving() as running:

        def ask() -> Refusal:
            with grpc.insecure_channel(running.target) as calls:
                return next(refusals(calls, server, BATCH, content, ()))  # a second may take what the first gives back

        slow = await asyncio.to_thread(ask)
    assert slow.megabytes > MEGABYTES
    assert slow.seconds > SECONDS
