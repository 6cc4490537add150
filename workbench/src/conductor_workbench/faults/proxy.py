"""A TCP proxy that does to connections what a network may do: delays, trickles, cuts, loses, half-closes.

It runs in a thread of its own, so that whoever asks it to break something can be a test of any kind. It sees bytes and
knows no protocol; what it does is told by a :class:`~conductor_workbench.faults.network.Fault`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from conductor_workbench.faults.network import CALM, AtFirst, Fault, Way

_CHUNK_BYTES = 1 << 16
_TRICKLES_PER_SECOND = 50
_RESET = struct.pack("ii", 1, 0)
_BACKLOG = 1024
_END = b""

Answer = TypeVar("Answer")


class Proxy:
    """Stands between who connects to ``target`` and a service. Use as ``with Proxy("127.0.0.1:6379") as proxy``."""

    def __init__(self, upstream: str, *, port: int = 0, seed: int = 0) -> None:
        """``upstream``: ``host:port``, or the path of a Unix socket. ``port``: 0 takes a free one."""
        self._upstream, self._chance = upstream, random.Random(seed)  # noqa: S311 - jitter
        self._fault, self._fault_number = CALM, 0
        self._changed = asyncio.Event()
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._port = port
        self.accepted = 0
        """Connections so far."""
        self.most_open = 0
        """Most connections that were open at once."""

    @property
    def port(self) -> int:
        """Where it listens, on the loopback interface."""
        return self._port

    @property
    def target(self) -> str:
        """``host:port`` to connect to."""
        return f"127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections of callers that are open."""
        return self._run(self._count())

    @contextlib.contextmanager
    def suffering(self, fault: Fault) -> Iterator[None]:
        """Let a fault last for as long as the block does."""
        self.suffer(fault)
        try:
            yield
        finally:
            self.suffer(CALM)

    def suffer(self, fault: Fault) -> None:
        """Let a fault begin, instead of the one that lasts; ``CALM`` ends it."""
        self._run(self._begin(fault))

    def redirect(self, upstream: str) -> None:
        """Lead new connections elsewhere and reset those that there are, as when an address moves in a failover."""
        self._upstream = upstream
        self._run(self._reset_all())

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, backlog=_BACKLOG)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._reset_all()
        await asyncio.gather(*(link.ended.wait() for link in list(self._links)))

    async def _reset_all(self) -> None:
        for link in list(self._links):
            link.end()

    async def _count(self) -> int:
        return len(self._links)

    async def _begin(self, fault: Fault) -> None:
        self._fault, self._fault_number = fault, self._fault_number + 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for link in list(self._links):
            link.begin(fault.at_first)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._fault.refuses:
            _reset(writer)
            return
        host, _, port = self._upstream.rpartition(":")
        try:
            if self._upstream.startswith("/"):
                upstream = await asyncio.open_unix_connection(self._upstream)
            else:
                upstream = await asyncio.open_connection(host, int(port))
        except OSError:
            _reset(writer)
            return
        link = _Link(self._now, self._chance, (reader, writer), upstream)
        self._links.add(link)
        self.most_open = max(self.most_open, len(self._links))
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def _now(self) -> tuple[Fault, int, asyncio.Event]:
        return self._fault, self._fault_number, self._changed


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """A caller's connection and the one that was made for it."""

    def __init__(
        self,
        now: Callable[[], tuple[Fault, int, asyncio.Event]],
        chance: random.Random,
        caller: _Streams,
        upstream: _Streams,
    ) -> None:
        self._now, self._chance = now, chance
        self._caller, self._upstream = caller, upstream
        self._forgotten = False
        self._tasks: list[asyncio.Task[None]] = []
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Carry bytes until both sides have ended, or one of them breaks."""
        requests = self._carry(self._caller[0], self._upstream[1], lambda fault: fault.requests)
        replies = self._carry(self._upstream[0], self._caller[1], lambda fault: fault.replies)
        self._tasks = [asyncio.create_task(requests), asyncio.create_task(replies)]
        # RuntimeError: bytes for a side that was half-closed before.
        with contextlib.suppress(OSError, EOFError, RuntimeError, asyncio.CancelledError):
            await asyncio.gather(*self._tasks)
        self.end()
        self.ended.set()

    def begin(self, what: AtFirst) -> None:
        if what is AtFirst.RESET:
            self.end()
        elif what is AtFirst.HALF_CLOSE and not self._forgotten:
            with contextlib.suppress(OSError):
                self._upstream[1].write_eof()
        elif what is AtFirst.FORGET:
            self._forgotten = True

    def end(self) -> None:
        """Both sides get an RST."""
        for task in self._tasks:
            task.cancel()
        _reset(self._caller[1])
        _reset(self._upstream[1])

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way_of: Callable[[Fault], Way]
    ) -> None:
        """Read as fast as bytes come, and let another task pass each on when it is due."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        passing = asyncio.create_task(self._pass_on(line, writer, way_of))
        loop = asyncio.get_running_loop()
        due = 0.0
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                if passing.done():
                    break
                way = way_of(self._now()[0])
                due = max(due, loop.time() + way.delay_seconds + self._chance.uniform(0, way.jitter_seconds))
                line.put_nowait((due, chunk))
            if self._forgotten:
                raise EOFError
            line.put_nowait((due, _END))
            await passing
        finally:
            passing.cancel()

    async def _pass_on(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way_of: Callable[[Fault], Way]
    ) -> None:
        loop = asyncio.get_running_loop()
        passed = number = 0
        while True:
            due, rest = await line.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            at_end = rest == _END
            while rest or at_end:
                fault, now, changed = self._now()
                way = way_of(fault)
                if self._forgotten or way.held:
                    await changed.wait()
                    continue
                if at_end:
                    writer.write_eof()
                    return
                if now != number:
                    passed, number = 0, now
                piece = rest[: _most(way, len(rest), passed)]
                if not piece:
                    raise EOFError
                writer.write(piece)
                await writer.drain()
                rest = rest[len(piece) :]
                passed += len(piece)
                if way.bytes_per_second:
                    await asyncio.sleep(len(piece) / way.bytes_per_second)


def _most(way: Way, count: int, passed: int) -> int:
    """How many of ``count`` bytes may pass at once, after those that passed already."""
    if way.bytes_per_second:
        count = min(count, max(1, int(way.bytes_per_second / _TRICKLES_PER_SECOND)))
    return count if way.most_bytes is None else min(count, max(0, way.most_bytes - passed))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST instead of a FIN."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
