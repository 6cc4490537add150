"""What every attack is judged by: what the attacker was told, what the process still holds, and that it goes on."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conductor.errors.v1.error_reason_pb2 import ErrorReason
from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor_rpc.errors import DOMAIN, TABLE
from conductor_rpc.roles import ROLES
from faults.scene import Scene

ATTACK_SECONDS = float(os.environ.get("CONDUCTOR_TEST_ATTACK_SECONDS", "0"))
"""How long each attack of the long form lasts; 0 is the short form."""

_LIBC = ctypes.CDLL(None)
GRPC_OWN = (
    (grpc.StatusCode.UNIMPLEMENTED, r"|Method not found!"),
    (grpc.StatusCode.NOT_FOUND, r""),  # health, of a service that it does not know
    (grpc.StatusCode.RESOURCE_EXHAUSTED, r"|.{0,40}larger than max.{0,40}|received metadata size exceeds .*"),
    (grpc.StatusCode.DEADLINE_EXCEEDED, r".*"),  # said by the client's own clock
    (grpc.StatusCode.CANCELLED, r".*"),
    (grpc.StatusCode.UNAVAILABLE, r".*"),  # no connection: the client's own words
    (grpc.StatusCode.INTERNAL, r".*[Cc]ompress.*|.*RST_STREAM.*|Error parsing '[a-z-]+' metadata|Illegal header.*"),
)
"""What gRPC answers before a call is ours, without an ErrorInfo. docs/other-clients.md tells them."""
_REASONS = {ErrorReason.Name(row.reason).removeprefix("ERROR_REASON_"): row.code for row in TABLE.values()}
_INSIDE = re.compile(
    r"Traceback|File \"|<class|\bat 0x[0-9a-f]|google\.protobuf|\.py\b|\.cc\b|site-packages|Exception\b|"
    r"Error parsing message|psycopg|SELECT |INSERT |Errno|/tmp/|/usr/|/home/"
)


def inside(text: str) -> str:
    """What in a text tells of our inside; empty for nothing."""
    found = _INSIDE.search(text)
    return found[0] if found else ""


def undocumented(error: grpc.RpcError) -> str:
    """What is wrong with what a caller was told; empty if it has a documented form."""
    code, text = error.code(), error.details() or ""
    status = rpc_status.from_call(error)
    if status is None:
        known = any(code is own and re.fullmatch(form, text, re.DOTALL) for own, form in GRPC_OWN)
        return inside(text) or ("" if known else f"neither ours nor gRPC's: {code} {text!r}")
    if inside(str(status)):
        return inside(str(status))
    info = error_details_pb2.ErrorInfo()
    if not status.details or not status.details[0].Unpack(info) or info.domain != DOMAIN:
        return f"without ErrorInfo: {status}"
    if info.reason == "INTERNAL":
        return f"an internal error: {info.metadata}"
    return "" if _REASONS.get(info.reason) is code else f"{info.reason} does not go with {code}"


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    megabytes: float
    descriptors: int
    threads: int


class Attacked:
    """A server's process while it is attacked."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)

    def held(self) -> Held:
        memory = self.process.memory_info().rss / 1e6
        return Held(memory, self.process.num_fds(), self.process.num_threads())

    def require_back(self, before: Held, *, megabytes: float, seconds: float = 60.0) -> Held:
        """Wait until it holds no more than before: memory within so much, descriptors and threads within a few."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.held()
            more = (
                now.megabytes - before.megabytes,
                now.descriptors - before.descriptors,
                now.threads - before.threads,
            )
            if more[0] <= megabytes and more[1] <= 2 and more[2] <= 8:  # gRPC's pool of threads grows with the load
                return now
            assert time.monotonic() < deadline, f"does not come back: {before}, {now}"
            time.sleep(0.05)

    @contextmanager
    def peak(self) -> Iterator[Callable[[], float]]:
        """Tells by how many MB the process grew at most, begun within the context, so far."""
        gc.collect()
        if self.process.pid == os.getpid():
            _LIBC.malloc_trim(0)  # what is free in our own heap would be filled first, and nothing grow
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak counts from now
        before = self.process.memory_info().rss / 1e6

        def grown() -> float:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6 - before  # type: ignore[index]

        yield grown


@contextmanager
def channel(scene: Scene, target: str | None = None) -> Iterator[grpc.Channel]:
    """A channel that lets a caller send what it likes."""
    credentials = grpc.ssl_channel_credentials(scene.platform.keys.ca_certificate.read_bytes())
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 1 << 20),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.secure_channel(target or scene.platform.prediction_target, credentials, options) as opened:
        yield opened


def bearer(scene: Scene, tenant_id: str) -> tuple[tuple[str, str], ...]:
    """Credentials with every role: what they are refused for is never a lack of one."""
    return (("authorization", f"Bearer {scene.platform.keys.token(tenant_id, roles=ROLES)}"),)


def require_good_soon(scene: Scene, calls: grpc.Channel) -> None:
    """As ``require_good``; where gRPC's own queue is full, it is asked again, as often as our clients ask."""
    for wait_seconds in (0.05, 0.1, 0.2):
        try:
            require_good(scene, calls)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:  # type: ignore[attr-defined]
                raise
        else:
            return
        time.sleep(wait_seconds)
    require_good(scene, calls)


def require_good(scene: Scene, calls: grpc.Channel) -> None:
    """A good call is answered, and right (`O1`)."""
    question, expected = scene.questions[0], scene.expected[0]
    request = PredictBuildDurationRequest(tenant_id=question.tenant_id, build=question.build)
    answer = PredictionServiceStub(calls).PredictBuildDuration(
        request, timeout=30, metadata=bearer(scene, question.tenant_id), wait_for_ready=True
    )
    assert answer.duration.ToTimedelta() == expected.median


def told_apart(some: Sequence[float], others: Sequence[float]) -> float:
    """Kolmogorov–Smirnov: how far the distributions of two samples lie apart, 1 being where chance (p = 0.001) ends."""
    points = sorted({*some, *others})
    apart = max(abs(_share(some, point) - _share(others, point)) for point in points)
    return apart / (1.95 * ((len(some) + len(others)) / (len(some) * len(others))) ** 0.5)


def _share(sample: Sequence[float], point: float) -> float:
    return statistics.fmean(value <= point for value in sample)
