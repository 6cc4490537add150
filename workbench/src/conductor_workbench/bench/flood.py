"""Calls by the thousand: a generator that costs a fraction of what a server's refusal does.

gRPC's own client takes as long for a call as the server does, so it can't overload one. This one speaks HTTP/2 by
itself: it makes a call's frames once, and looks at nothing but what a call ended with. Like every client it has no more
streams open than the server allows, and gives up a call at its deadline, whether that was sent already or not.
"""

from __future__ import annotations

import itertools
import math
import selectors
import socket
import ssl
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW = 0, 1, 3, 4, 6, 8
_END_STREAM, _END_HEADERS, _ACKNOWLEDGED = 1, 4, 1
_MAX_STREAMS, _WINDOW_SIZE = 3, 4
_LARGE = 1 << 30
_FRAME = 16_384
_CANCEL = 8
_SWEEP_SECONDS = 0.01
_TICK_SECONDS = 0.0005
_LONG_TICK_SECONDS, _LONG_TICK_FROM_PER_S = 0.002, 5000.0
"""At such rates what falls due within a longer while is sent at once, and answers are read as seldom: durations are
told up to two ticks too long, but a system call for each call would take the server's CPU time."""
_SETTLE_SECONDS = 0.2

DEADLINE = "DEADLINE_EXCEEDED here"
"""Given up by the caller."""
_OK = "0"


@dataclass
class Stream:
    """Calls of one kind."""

    payloads: tuple[bytes, ...]
    """Requests, sent in turn."""
    rate_per_s: float = 0.0
    """Sent at this rate, answered or not; 0: ``in_flight`` are kept under way instead."""
    in_flight: int = 0
    connections: int = 1
    timeout_seconds: float = 1.0
    headers: tuple[tuple[str, str], ...] = ()


class Ended(NamedTuple):
    """A call that has ended."""

    moment: float
    """Since the begin, in seconds."""
    why: str
    """gRPC's code and message, DEADLINE, or "" for an answer."""
    took: float
    """Since it was due, whether it was sent late or not."""
    took_server: float
    """Since it was sent; infinite if it never was."""


@dataclass
class Outcome:
    """What became of calls of one kind."""

    sent: int = 0
    ended: list[Ended] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """Number of the payload, and the message that answered it."""

    @property
    def answered(self) -> list[float]:
        """Durations of calls that were answered, from when they were due."""
        return [one.took for one in self.ended if not one.why]

    @property
    def refused(self) -> list[float]:
        """Durations of calls that the server ended otherwise, from when they were sent."""
        return [one.took_server for one in self.ended if one.why not in ("", DEADLINE)]

    def counts(self) -> dict[str, int]:
        """How many ended how, without what differs from call to call."""
        return dict(Counter(one.why.partition(":")[0] or "answered" for one in self.ended))


class _Ends:
    """What the header blocks of a connection say of how calls ended.

    Thousands of refusals are the same bytes, and decoding is most of what a call costs here. A block's meaning is
    remembered while the compression's table stays as it was when the block was read, and did not change it.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, str | None] = {}

    def told_by(self, block: bytes) -> str | None:
        """gRPC's code and message, "" for an answer; None: the block ends no call."""
        try:
            return self._known[block]
        except KeyError:
            pass
        table = self._decoder.header_table.dynamic_entries
        before = list(table)
        told: dict[str, str] = dict(self._decoder.decode(block))  # type: ignore[arg-type]
        code = told.get("grpc-status")
        ended = None if code is None else "" if code == _OK else f"{code}: {told.get('grpc-message', '')}"
        if list(table) == before:
            self._known[block] = ended
        else:
            self._known.clear()
        return ended


class _Connection:
    """A connection, and the calls on it."""

    def __init__(self, target: str, method: str, root_certificates: str, stream: Stream) -> None:
        host, _, port = target.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if root_certificates:
            context = ssl.create_default_context(cadata=root_certificates)
            context.set_alpn_protocols(["h2"])
            plain = context.wrap_socket(plain, server_hostname=host)
        self.socket = plain
        self._ends, self._in, self.out = _Ends(), b"", bytearray()
        self._next_id, self._stream = 1, stream
        self._most = 100
        self.open: dict[int, tuple[float, int, bytearray, float]] = {}
        self.waiting: deque[tuple[float, int]] = deque()
        self._blocks: dict[int, bytes] = {}
        self._headers = [
            (":method", "POST"), (":scheme", "https" if root_certificates else "http"), (":path", method),
            (":authority", target), ("content-type", "application/grpc"), ("te", "trailers"), *stream.headers,
        ]  # fmt: skip
        self.socket.sendall(
            _PREFACE + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _WINDOW_SIZE, _LARGE))
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGE))
        )  # fmt: skip
        self.socket.setblocking(False)

    def send(self, now: float) -> Iterator[float]:
        """Open streams for calls that wait, as many as the server allows; tells when those were due that waited too
        long."""
        while self.waiting:
            due, number = self.waiting[0]
            left = due + self._stream.timeout_seconds - now
            if left > 0 and len(self.open) >= self._most:
                break
            self.waiting.popleft()
            if left <= 0:
                yield due
                continue
            block = self._block(max(1, int(left * 1e3)))
            payload = self._stream.payloads[number % len(self._stream.payloads)]
            body = b"\0" + struct.pack(">I", len(payload)) + payload
            self.out += _frame(_HEADERS, _END_HEADERS, self._next_id, block)
            for at in range(0, len(body), _FRAME):
                last = _END_STREAM if at + _FRAME >= len(body) else 0
                self.out += _frame(_DATA, last, self._next_id, body[at : at + _FRAME])
            self.open[self._next_id] = (due, number, bytearray(), now)
            self._next_id += 2
        self._flush()

    def _block(self, milliseconds: int) -> bytes:
        """The headers with a timeout. By an encoder of its own, as a block may then be sent at any time."""
        block = self._blocks.get(milliseconds)
        if block is None:
            timeout = ("grpc-timeout", f"{milliseconds}m")
            block = self._blocks[milliseconds] = hpack.Encoder().encode([*self._headers, timeout], huffman=False)
        return block

    def _flush(self) -> None:
        try:
            while self.out:
                del self.out[: self.socket.send(self.out)]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return

    def read(self) -> Iterator[tuple[float, float, int, str, bytes]]:
        """The calls that have ended: when due and sent, number, with what, answer."""
        try:
            while found := self.socket.recv(1 << 18):
                self._in += found
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        content, at = self._in, 0
        while len(content) - at >= 9 and len(content) - at >= 9 + (size := int.from_bytes(content[at : at + 3], "big")):
            kind, flags = content[at + 3], content[at + 4]
            stream_id = int.from_bytes(content[at + 5 : at + 9], "big")
            body = content[at + 9 : at + 9 + size]
            at += 9 + size
            ended = self._take(kind, flags, stream_id, body)
            if ended is not None and stream_id in self.open:
                due, number, answer, sent = self.open.pop(stream_id)
                yield due, sent, number, ended, bytes(answer[5:])
        self._in = content[at:]

    def _take(self, kind: int, flags: int, stream_id: int, body: bytes) -> str | None:
        """What the frame's stream ended with, if it did."""
        if kind == _HEADERS:
            return self._ends.told_by(body)
        if kind == _DATA and stream_id in self.open:
            self.open[stream_id][2].extend(body)
        elif kind == _RESET:
            return f"reset {int.from_bytes(body, 'big')}"
        elif kind == _SETTINGS and not flags & _ACKNOWLEDGED:
            for name, value in struct.iter_unpack(">HI", body):
                self._most = value if name == _MAX_STREAMS else self._most
            self.out += _frame(_SETTINGS, _ACKNOWLEDGED, 0, b"")
        elif kind == _PING and not flags & _ACKNOWLEDGED:
            self.out += _frame(_PING, _ACKNOWLEDGED, 0, body)
        return None

    def give_up(self, now: float) -> Iterator[tuple[float, float]]:
        """The calls whose deadline has passed: when due and sent."""
        late = [name for name, (due, *_) in self.open.items() if due + self._stream.timeout_seconds < now]
        for stream_id in late:
            due, _, _, sent = self.open.pop(stream_id)
            self.out += _frame(_RESET, 0, stream_id, struct.pack(">I", _CANCEL))
            yield due, sent


def flood(
    target: str, method: str, streams: Sequence[Stream], seconds: float, root_certificates: str = "", kept: int = 0
) -> list[Outcome]:
    """Send calls of several kinds for so long, and return when all have ended; at most ``kept`` answers are kept."""
    return _Flood(target, method, streams, root_certificates, kept).run(seconds)


class _Flood:
    def __init__(self, target: str, method: str, streams: Sequence[Stream], root_certificates: str, kept: int) -> None:
        self._streams, self._kept = streams, kept
        self._outcomes = [Outcome() for _ in streams]
        self._connections = [
            [_Connection(target, method, root_certificates, stream) for _ in range(stream.connections)]
            for stream in streams
        ]
        self._selector = selectors.DefaultSelector()
        self._all = [
            (connection, outcome)
            for outcome, connections in zip(self._outcomes, self._connections, strict=True)
            for connection in connections
        ]
        for connection, outcome in self._all:
            self._selector.register(connection.socket, selectors.EVENT_READ, (connection, outcome))
        self._began = 0.0
        per_s = sum(stream.rate_per_s for stream in streams)
        self._tick = _TICK_SECONDS if per_s < _LONG_TICK_FROM_PER_S else _LONG_TICK_SECONDS

    def run(self, seconds: float) -> list[Outcome]:
        settled = time.perf_counter() + _SETTLE_SECONDS  # by then the servers have told how many streams they take
        while time.perf_counter() < settled:
            self._read()
            for connection, _ in self._all:
                list(connection.send(time.perf_counter()))
            time.sleep(self._tick)
        self._began = time.perf_counter()
        swept = self._began
        while (now := time.perf_counter()) < self._began + seconds or any(c.open or c.waiting for c, _ in self._all):
            if now < self._began + seconds:
                self._fall_due(now)
            for connection, outcome in self._all:
                outcome.ended += [
                    Ended(now - self._began, DEADLINE, now - due, math.inf) for due in connection.send(now)
                ]
            if now > swept + _SWEEP_SECONDS:
                swept = now
                for connection, outcome in self._all:
                    late = connection.give_up(now)
                    outcome.ended += [Ended(now - self._began, DEADLINE, now - due, now - sent) for due, sent in late]
            self._read()
            time.sleep(max(0.0, now + self._tick - time.perf_counter()))
        for connection, _ in self._all:
            connection.socket.close()
        self._selector.close()
        return self._outcomes

    def _fall_due(self, now: float) -> None:
        for stream, outcome, connections in zip(self._streams, self._outcomes, self._connections, strict=True):
            by_turns = itertools.cycle(connections)
            if stream.rate_per_s:
                while (due := self._began + outcome.sent / stream.rate_per_s) <= now:
                    connections[outcome.sent % len(connections)].waiting.append((due, outcome.sent))
                    outcome.sent += 1
            else:
                under_way = sum(len(one.open) + len(one.waiting) for one in connections)
                for connection in itertools.islice(by_turns, max(0, stream.in_flight - under_way)):
                    connection.waiting.append((now, outcome.sent))
                    outcome.sent += 1

    def _read(self) -> None:
        for key, _ in self._selector.select(0):
            connection, outcome = key.data
            for due, sent, number, why, answer in connection.read():
                now = time.perf_counter()
                outcome.ended.append(Ended(now - self._began, why, now - due, now - sent))
                if not why and len(outcome.answers) < self._kept:
                    outcome.answers.append((number, answer))


def _frame(kind: int, flags: int, stream_id: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream_id) + body
