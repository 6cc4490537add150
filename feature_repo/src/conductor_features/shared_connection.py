"""One connection to the online store, shared by the requests that wait at the same time.

Requests never touch the connection. They queue their keys and wait for a future; one background task owns the
connection, sends what has queued up as one ``MGET`` and deals out the replies. So a request that is cancelled leaves
nothing behind: its reply is read like any other and dropped. (redis-py closes a connection whose command is cancelled
between request and reply; with cancellations being common here that would cost a reconnect each, and before 4.5.4 it
handed the reply to the next caller: redis/redis-py#2624, #2665.)

A reply that does not come in time costs the connection, as nothing else can tell a late reply from the next one's.
While Redis can't be reached, reads fail at once and the task reconnects in the background.

Of a Redis Cluster the nodes are asked side by side, in one round trip each. It is all or nothing as with one Redis: a
node that does not answer makes the whole store unavailable until it, or its replica, does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from conductor_features.clients import FAILURES
from conductor_features.connections import Replies, Values, open_connection
from conductor_features.listing import ListCommand
from conductor_features.reader_statistics import ReaderStatistics

_LOG = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 0.25
"""An idle connection is tried this often, so that the loss is noticed before a request meets it."""
_CONNECT_SECONDS = 0.5
_FIRST_BACKOFF_SECONDS = 0.01
_LAST_BACKOFF_SECONDS = 0.2
_GRACE_SECONDS = 0.005
"""When the event loop was late itself, the reply may lie in the socket unread: it gets this long to be found."""


class OnlineStoreUnavailable(Exception):
    """The online store did not answer in time, or can't be reached."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class _Waiting:
    keys: Sequence[bytes]
    future: asyncio.Future[tuple[Values, Replies]]
    deadline: float
    lists: Sequence[ListCommand] = ()

    @property
    def size(self) -> int:
        return len(self.keys) + sum(one.size for one in self.lists)


class SharedConnection:
    """Keeps the connection, and answers keys with what is stored; what that means is its reader's affair."""

    def __init__(self, redis_url: str, timeout_seconds: float = 0.02) -> None:
        """``timeout_seconds`` bounds a read from call to answer, waiting for others included."""
        if timeout_seconds <= 0:
            raise ValueError("the timeout must be positive")
        self.statistics = ReaderStatistics()
        self._timeout_seconds = timeout_seconds
        self._store = open_connection(redis_url, _CONNECT_SECONDS)
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._unavailable: str | None = "not started"
        self._connected = False
        self._task: asyncio.Task[None] | None = None

    @property
    def timeout_seconds(self) -> float:
        """What bounds a read."""
        return self._timeout_seconds

    @property
    def connected(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._connected

    def start(self) -> None:
        """Start the background task on the running event loop."""
        if self._task is None:
            self._unavailable = None
            self._task = asyncio.get_running_loop().create_task(self._run(), name="online-reader")

    async def close(self) -> None:
        """Stop the task, drop the connection and fail whoever still waits."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._set_unavailable("closed")

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _fetch(self, keys: Sequence[bytes]) -> Values:
        """What is stored under keys, in their order; raises :class:`OnlineStoreUnavailable`."""
        return (await self._exchanged(keys))[0]

    async def _exchanged(self, keys: Sequence[bytes], lists: Sequence[ListCommand] = ()) -> tuple[Values, Replies]:
        """As :meth:`_fetch`, and answers about lists; both read in the same round trip."""
        self.statistics.reads += 1
        if not keys and not lists:
            return [], []
        if self._unavailable is not None:
            self.statistics.refused += 1
            raise OnlineStoreUnavailable(self._unavailable)
        self.statistics.keys += len(keys)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(keys, loop.create_future(), loop.time() + self._timeout_seconds, lists)
        self._waiting.append(waiting)
        self._wake.set()
        return await waiting.future

    async def _run(self) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                # Right after a loss, reads queue up for the short while that a reconnect takes. Only when it fails
                # are they refused at once.
                patience = self._timeout_seconds if self._unavailable is None else _CONNECT_SECONDS
                async with asyncio.timeout(patience):
                    await self._store.connect()
                self._unavailable, self._connected = None, True
                self.statistics.connects += 1
                backoff = _FIRST_BACKOFF_SECONDS
                await self._serve()
            except FAILURES as error:
                self._lost(error)
            except Exception as error:  # whatever it is, callers must not be left waiting for ever
                _LOG.exception("the online reader failed")
                self._lost(error)
            finally:
                self._connected = False
                await self._store.close()
            if self._unavailable is not None:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)

    def _lost(self, error: Exception) -> None:
        reason = "Redis did not answer in time" if isinstance(error, TimeoutError) else f"Redis: {error}"
        if self._connected:
            self.statistics.disconnects += 1
            _LOG.warning("lost the online store: %s", reason)
            self._fail_waiting(reason)
        else:
            if self._unavailable is None:
                _LOG.warning("can't reach the online store: %s", reason)
            self._set_unavailable(reason)

    def _set_unavailable(self, reason: str) -> None:
        self._unavailable = reason
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(OnlineStoreUnavailable(reason))

    async def _serve(self) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                try:
                    async with asyncio.timeout(_HEARTBEAT_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    async with self._bound(asyncio.get_running_loop().time() + max(self._timeout_seconds, 0.1)):
                        await self._store.ping()
                    continue
            await self._exchange(self._take_batch())

    def _take_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0].size <= self._store.exchange_keys):
            waiting = self._waiting.popleft()
            if not waiting.future.done():  # else its caller is gone
                batch.append(waiting)
                size += waiting.size
        return batch

    async def _exchange(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        keys = [key for waiting in batch for key in waiting.keys]
        lists = [one for waiting in batch for one in waiting.lists]
        self.statistics.exchanges += 1
        try:
            async with self._bound(batch[0].deadline):
                stored, members = await self._store.fetch(keys, lists)
        except BaseException as error:
            # Back to the front of the queue: whoever handles the loss fails them with its reason.
            self.statistics.timeouts += isinstance(error, TimeoutError)
            self._waiting.extendleft(reversed(batch))
            raise
        at = listed_at = 0
        for waiting in batch:
            end, listed_end = at + len(waiting.keys), listed_at + len(waiting.lists)
            if not waiting.future.done():
                waiting.future.set_result((stored[at:end], members[listed_at:listed_end]))
            at, listed_at = end, listed_end

    @contextlib.asynccontextmanager
    async def _bound(self, deadline: float) -> AsyncIterator[None]:
        """Raise TimeoutError at ``deadline`` and a grace, of which the loop has had at least the grace to itself."""
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        async with asyncio.timeout(None) as scope:

            def expire() -> None:
                timers.append(loop.call_later(_GRACE_SECONDS, lambda: scope.reschedule(loop.time())))

            timers.append(loop.call_at(deadline, expire))
            try:
                yield
            finally:
                for timer in timers:
                    timer.cancel()
