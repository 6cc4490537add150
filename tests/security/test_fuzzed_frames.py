"""S1: HTTP/2 frames, TLS and HTTP that no client would send."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from faults.scene import Scene
from security.attacked import ATTACK_SECONDS, Attacked, channel, inside, require_good, require_good_soon
from security.raw_http2 import PREFACE, RawConnection

Parts = list[bytes | Frame]
PATIENCE_SECONDS = 0.3
"""A connection that says something wrong is answered at once, or ignored."""


def raw(length: int, kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame whose header says what it likes."""
    return struct.pack(">BHBBL", length >> 16, length & 0xFFFF, kind, flags, stream) + body


def _literal(name: bytes, value: bytes, *, kept: bool = False) -> bytes:
    """A header that is spelt out, kept in the table of headers or not."""
    return (b"\x40" if kept else b"\x00") + bytes([len(name)]) + name + _integer(len(value)) + value


def _integer(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    found, value = bytearray([127]), value - 127
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


CASES: dict[str, Callable[[RawConnection], Parts]] = {
    "a frame that is cut off": lambda c: [raw(100, 1, 4, 1, b"\x82")],
    "a frame larger than was agreed": lambda c: [raw(0xFFFFFF, 0, 0, 1, bytes(65536))],
    "data before headers": lambda c: [DataFrame(1, b"x")],
    "an even stream": lambda c: [c.open(2, c.headers())],
    "stream 0": lambda c: [c.open(1, c.headers()), raw(5, 0, 0, 0, bytes(5))],
    "a stream that goes back": lambda c: [c.open(9, c.headers()), c.open(3, c.headers())],
    "the last stream": lambda c: [c.open(2**31 - 1, c.headers()), c.open(1, c.headers())],
    "headers twice": lambda c: [c.open(1, c.headers()), c.open(1, c.headers())],
    "data after the end": lambda c: [c.open(1, c.headers(), ended=True), DataFrame(1, b"x" * 100)],
    "a message that is cut off": lambda c: [
        c.open(1, c.headers()), DataFrame(1, b"\0\0\0\x10\0abc", flags=["END_STREAM"])
    ],
    "a message of 4 GB": lambda c: [c.open(1, c.headers()), DataFrame(1, b"\0\xff\xff\xff\xffabc")],
    "a message compressed by nothing known": lambda c: [
        c.open(1, c.headers(more=[("grpc-encoding", "zip")])), DataFrame(1, b"\x07\0\0\0\x01a", flags=["END_STREAM"])
    ],
    "padding longer than the frame": lambda c: [c.open(1, c.headers()), raw(5, 0, 8, 1, b"\xffabcd")],
    "a continuation of nothing": lambda c: [ContinuationFrame(1, c.headers(), flags=["END_HEADERS"])],
    "a continuation of another stream": lambda c: [HeadersFrame(1, c.headers()), ContinuationFrame(3, b"\x82")],
    "continuations without an end": lambda c: [
        HeadersFrame(1, c.headers()), *[ContinuationFrame(1, _literal(b"x", b"y") * 200)] * 200, RstStreamFrame(1)
    ],
    "empty continuations": lambda c: [HeadersFrame(1, c.headers()), *[ContinuationFrame(1, b"")] * 5_000],
    "a table of headers as a bomb": lambda c: [
        HeadersFrame(1, c.headers() + _literal(b"x", b"y" * 3_900, kept=True)),
        *[ContinuationFrame(1, b"\xbe" * 10_000)] * 10,
        ContinuationFrame(1, b"", flags=["END_HEADERS"]),
    ],
    "a table that grows for ever": lambda c: [HeadersFrame(1, b"\x3f\xff\xff\xff\xff\x0f", flags=["END_HEADERS"])],
    "a header that is not there": lambda c: [HeadersFrame(1, b"\xff\xff\xff\xff\x0f", flags=["END_HEADERS"])],
    "a text that is no Huffman code": lambda c: [
        HeadersFrame(1, c.headers() + b"\x00\x01x\x84\xff\xff\xff\xff", flags=["END_HEADERS"])
    ],
    "control characters in headers": lambda c: [
        HeadersFrame(1, c.headers() + _literal(b"x", b"a\r\nb: c\0") + _literal(b"\n", b"y"), flags=["END_HEADERS"])
    ],
    "bytes beyond ASCII in headers": lambda c: [
        HeadersFrame(1, c.headers() + _literal(b"x", bytes(range(128, 256))), flags=["END_HEADERS"])
    ],
    "no path": lambda c: [HeadersFrame(1, b"\x83\x87", flags=["END_HEADERS", "END_STREAM"])],
    "paths twice": lambda c: [c.open(1, c.headers(more=[(":path", "/x")]), ended=True)],
    "GET": lambda c: [c.open(1, c._encoder.encode([(":method", "GET"), (":scheme", "https"), (":path", "/")]))],
    "settings with a remainder": lambda c: [raw(7, 4, 0, 0, bytes(7))],
    "settings out of their range": lambda c: [
        SettingsFrame(0, settings={4: 2**32 - 1}), SettingsFrame(0, settings={5: 1}), SettingsFrame(0, settings={2: 7})
    ],
    "a window beyond its range": lambda c: [WindowUpdateFrame(0, window_increment=2**31 - 1)] * 3,
    "a window of nothing": lambda c: [c.open(1, c.headers()), raw(4, 8, 0, 1, bytes(4))],
    "a ping of seven bytes": lambda c: [raw(7, 6, 0, 0, bytes(7))],
    "a reset of nothing": lambda c: [RstStreamFrame(1, error_code=8), RstStreamFrame(2**31 - 1, error_code=2**32 - 1)],
    "a promise": lambda c: [PushPromiseFrame(1, 2, c.headers(), flags=["END_HEADERS"])],
    "priorities that go round": lambda c: [PriorityFrame(1, depends_on=3), PriorityFrame(3, depends_on=1)] * 500,
    "a stream that depends on itself": lambda c: [PriorityFrame(1, depends_on=1)],
    "a farewell": lambda c: [GoAwayFrame(0, 2**31 - 1, 0, b"x" * 10_000), c.open(1, c.headers())],
    "frames of unknown kinds": lambda c: [raw(100, kind, 255, 7, bytes(100)) for kind in range(11, 256)],
    "a second preface": lambda c: [PREFACE],
    "thousands of resets": lambda c: [
        part for n in range(1, 4001, 2) for part in (c.open(n, c.headers()), RstStreamFrame(n, error_code=8))
    ],
}  # fmt: skip


def heard(connection: RawConnection, parts: Parts) -> list[Frame]:
    """What is said to it; the server may hang up, but it must not fall silent: a ping in the end is answered."""
    with contextlib.suppress(OSError):
        connection.send(*parts, PingFrame(0, opaque_data=b"conducto"))
    frames = []
    for frame in connection.frames(PATIENCE_SECONDS):
        frames.append(frame)
        if isinstance(frame, PingFrame) and "ACK" in frame.flags:
            break
    return frames


def told(frames: list[Frame]) -> Iterator[str]:
    """Every text in what was said."""
    decoder = Decoder()
    for frame in frames:
        if isinstance(frame, HeadersFrame):
            yield from (f"{name}: {value}" for name, value in decoder.decode(frame.data))
        yield bytes(getattr(frame, "additional_data", b"") or getattr(frame, "data", b"") or b"").decode("latin-1")


@pytest.fixture(scope="module")
def server(scene: Scene) -> Attacked:
    return Attacked(scene.platform.pid("serve"))


def test_frames(scene: Scene, server: Attacked) -> None:
    target, authority = scene.platform.prediction_target, str(scene.platform.keys.ca_certificate)
    with channel(scene) as calls:
        require_good(scene, calls)
        before = server.held()
        for name, parts in CASES.items():
            with RawConnection(target, authority) as connection:
                frames = heard(connection, parts(connection))
            assert not any(map(inside, told(frames))), f"{name}: {frames}"
            require_good_soon(scene, calls)
        server.require_back(before, megabytes=40)


def test_random_frames(scene: Scene, server: Attacked) -> None:
    target, authority = scene.platform.prediction_target, str(scene.platform.keys.ca_certificate)
    seed = 0
    with channel(scene) as calls:
        require_good(scene, calls)
        before, until = server.held(), time.monotonic() + ATTACK_SECONDS
        while seed < 8 or time.monotonic() < until:
            chance = random.Random(seed)
            with RawConnection(target, authority, begun=chance.random() < 0.9) as connection:
                parts: Parts = []
                for _ in range(chance.randrange(1, 40)):
                    parts += chance.choice(list(CASES.values()))(connection)[:20]
                    body = chance.randbytes(chance.choice([0, 1, 4, 5, 8, 100]))
                    length = len(body) if chance.random() < 0.9 else chance.randrange(1 << 24)
                    parts.append(raw(length, chance.randrange(12), chance.randrange(256), chance.randrange(8), body))
                chance.shuffle(parts)
                with contextlib.suppress(OSError):
                    connection.send(*parts)
                frames = list(connection.frames(0.02))
            assert not any(map(inside, told(frames))), f"seed {seed}: {frames}"
            require_good_soon(scene, calls)
            seed += 1
        server.require_back(before, megabytes=40)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff" + bytes(70_000), b"GET / HTTP/1.1\r\n\r\n",
     PREFACE, bytes(range(256)) * 10, b"\x15\x03\x03\x00\x02\x02\x28"],
    ids=["nothing", "a byte", "half a hello", "a long hello", "HTTP", "plain HTTP/2", "garbage", "an alert"],
)  # fmt: skip
def test_half_tls(scene: Scene, server: Attacked, content: bytes) -> None:
    host, _, port = scene.platform.prediction_target.rpartition(":")
    with channel(scene) as calls:
        require_good(scene, calls)
        before = server.held()
        held = [socket.create_connection((host, int(port)), 5) for _ in range(20)]
        for connection in held:
            with contextlib.suppress(OSError):
                connection.sendall(content)
        require_good(scene, calls)
        for connection in held:
            connection.close()
        server.require_back(before, megabytes=20)


def test_a_preface_of_garbage_ends_the_connection(scene: Scene) -> None:
    target, authority = scene.platform.prediction_target, str(scene.platform.keys.ca_certificate)
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", bytes(100)):
        with RawConnection(target, authority, begun=False) as connection:
            connection.send(content)
            frames = list(connection.frames(5))
            assert connection.closed
            assert not any(map(inside, told(frames)))


def test_the_check_finds_what_is_planted() -> None:
    """A server that tells of its inside as it says farewell."""
    farewell = GoAwayFrame(0, 0, 2, b"protocol error at /usr/lib/transport.cc:120")
    assert list(filter(None, map(inside, told([farewell]))))
    assert not list(filter(None, map(inside, told([GoAwayFrame(0, 0, 2, b"too_many_pings")]))))


def test_what_is_no_handshake_is_not_logged(scene: Scene) -> None:
    """Who has no credentials could fill the disk with gRPC's own lines."""
    host, _, port = scene.platform.prediction_target.rpartition(":")
    logged = len(scene.logs())
    for _ in range(20):
        with socket.create_connection((host, int(port)), 30) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while connection.recv(4096):
                pass
    with channel(scene) as calls:
        require_good(scene, calls)
    assert "Handshake" not in scene.logs()[logged:]
