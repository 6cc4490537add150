"""Reads feature rows for the prediction plane: one round trip, shared by the requests that wait at the same time.

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
from functools import lru_cache
from itertools import chain
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from conductor_features.blocks import RowBlock, RowState
from conductor_features.clients import FAILURES
from conductor_features.codec import CorruptValue, decode_block, decode_keyed_block, decode_or_reason, decode_rows
from conductor_features.connections import Replies, Values, open_connection
from conductor_features.filling import is_filled, is_listed
from conductor_features.keys import REMEMBERED, entity_key
from conductor_features.listing import Identities, ListCommand
from conductor_features.rows import ABSENT, UNFILLED, FeatureRow, Missing
from conductor_features.tables import RowTable, TableLayout
from conductor_features.views import View

_LOG = logging.getLogger(__name__)

_BLOCK_KEYS = 32
"""This many rows and more are decoded together, view by view: fewer take longer that way."""
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
class ReaderStatistics:
    """What the reader has done since it was made. Only ever counts up; telemetry reads it."""

    reads: int = 0
    """Calls of read or read_block."""
    keys: int = 0
    """Keys asked for."""
    exchanges: int = 0
    """Round trips; ``reads / exchanges`` is how many requests shared one."""
    absent: int = 0
    corrupt: int = 0
    timeouts: int = 0
    """Round trips given up after the timeout."""
    disconnects: int = 0
    """Connections lost or dropped, timeouts included."""
    connects: int = 0
    refused: int = 0
    """Reads refused at once because Redis can't be reached."""


@dataclass(slots=True)
class _Waiting:
    keys: Sequence[bytes]
    future: asyncio.Future[tuple[Values, Replies]]
    deadline: float
    lists: Sequence[ListCommand] = ()

    @property
    def size(self) -> int:
        return len(self.keys) + sum(one.size for one in self.lists)


class OnlineReader:
    """Reads rows from the online store. Use as ``async with OnlineReader(url) as reader``; one per event loop.

    Starting does not need Redis: it is connected in the background, and again whenever it was lost.
    """

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

    async def read(self, requests: Sequence[tuple[View, tuple[str, ...]]]) -> list[FeatureRow | Missing]:
        """Rows of the asked (view, entity), in order, in one round trip; a refused value is :class:`Missing`.

        A row that is not there is ABSENT where its view was filled in, else UNFILLED. Says nothing about age: look at
        the rows' event times. Raises :class:`OnlineStoreUnavailable` within the timeout, ValueError for an entity that
        is not of its view. May be cancelled at any moment.
        """
        keys = [_key(view.key, view.entity, entity) for view, entity in requests]
        views = {view.key: view for view, _ in requests}
        positions = [self._store.position_keys(view_key) for view_key in views]
        # The positions before the rows: what is filled by then stays so for as long as the connection does.
        stored = await self._fetch([*chain.from_iterable(positions), *keys])
        if not all(positions):  # a cluster's are known once it is connected, which it is now
            return await self.read(requests)
        absent = {}
        for view_key, names in zip(views, positions, strict=True):
            held, stored = stored[: len(names)], stored[len(names) :]
            absent[view_key] = ABSENT if all(map(is_filled, held)) else UNFILLED
        if len(keys) < _BLOCK_KEYS:
            return [
                self._row(None if value is None else decode_or_reason(key, value, len(view.fields)), absent[view.key])
                for (view, _), key, value in zip(requests, keys, stored, strict=True)
            ]
        rows: list[FeatureRow | Missing] = [ABSENT] * len(keys)
        for view_key, view in views.items():
            places = [at for at, (asked, _) in enumerate(requests) if asked is view or asked.key == view_key]
            found = decode_rows([keys[at] for at in places], [stored[at] for at in places], len(view.fields))
            for at, row in zip(places, found, strict=True):
                rows[at] = row if type(row) is FeatureRow else self._row(row, absent[view_key])
        return rows

    def _row(self, found: FeatureRow | CorruptValue | None, absent: Missing) -> FeatureRow | Missing:
        if isinstance(found, FeatureRow):
            return found
        if found is None:
            self.statistics.absent += 1
            return absent
        self.statistics.corrupt += 1
        return Missing(f"corrupt: {found}")

    async def read_table(self, layout: TableLayout, entities: Sequence[Sequence[tuple[str, ...]]]) -> RowTable:
        """Rows of all of a layout's views for many requests, as one array.

        Args:
            layout: the views.
            entities: of each request, an entity for each view.

        Says what is missing, and raises, as :meth:`read` does.
        """
        views = layout.views
        keys = [
            _key(view.key, view.entity, entity)
            for of_request in entities
            for view, entity in zip(views, of_request, strict=True)
        ]
        positions = [self._store.position_keys(view.key) for view in views]
        # Each once: requests of a batch have entities in common. The positions come first, as in read.
        unique = list(dict.fromkeys(chain(chain.from_iterable(positions), keys)))
        stored = dict(zip(unique, await self._fetch(unique), strict=True))
        if not all(positions):  # as in read
            return await self.read_table(layout, entities)
        absent = [ABSENT if all(is_filled(stored[name]) for name in names) else UNFILLED for names in positions]
        table = layout.table(keys, stored, absent)
        for missing in table.missing.values():
            self.statistics.corrupt += missing.corrupt
            self.statistics.absent += not missing.corrupt
        return table

    async def read_block(
        self, view: View, entities: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of many entities of one view, as arrays.

        Returns values ``[n, fields]`` (NaN where there is no usable row), event times in microseconds ``[n]`` (0 where
        there is none) and ``ok [n]``. Raises as :meth:`read` does.
        """
        keys = [_key(view.key, view.entity, tuple(entity)) for entity in entities]
        stored = await self._fetch(keys)
        values, event_time_us, ok = decode_block(keys, stored, len(view.fields))
        absent = stored.count(None)
        self.statistics.absent += absent
        self.statistics.corrupt += len(keys) - absent - int(ok.sum())
        return values, event_time_us, ok

    async def read_keyed_block(self, view: View, keys: Sequence[bytes], identities: Identities) -> RowBlock:
        """Rows of thousands of entities of one view, whose keys and fingerprints the caller has ready.

        Raises as :meth:`read` does. Such a read takes the connection for itself for a while, and needs a longer time
        limit than others: use a reader of its own for it.
        """
        positions = self._store.position_keys(view.key)
        stored = await self._fetch([*positions, *keys])
        if keys and not positions:  # as in read
            return await self.read_keyed_block(view, keys, identities)
        filled = all(map(is_filled, stored[: len(positions)]))
        stored = stored[len(positions) :]
        values, event_time_us, ok = decode_keyed_block(identities, stored, len(view.fields))
        there = np.fromiter((value is not None for value in stored), np.bool_, len(stored))
        nothing = RowState.ABSENT if filled else RowState.UNFILLED
        state = np.where(ok, RowState.OK, np.where(there, RowState.CORRUPT, nothing)).astype(np.uint8)
        self.statistics.absent += int(len(stored) - there.sum())
        self.statistics.corrupt += int((there & ~ok).sum())
        return RowBlock(values, event_time_us, state)

    async def ask_lists(self, view: View, commands: Sequence[ListCommand]) -> tuple[Replies, bool]:
        """Answers about lists of a view, None about what is no list; and whether the view's lists are whole.

        For :mod:`conductor_features.list_reading`. Raises as :meth:`read` does.
        """
        positions = self._store.position_keys(view.key)
        held, replies = await self._exchanged(positions, commands)
        if not positions:  # as in read
            return await self.ask_lists(view, commands)
        self.statistics.corrupt += replies.count(None)
        return replies, all(map(is_listed, held))

    async def read_values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is stored under keys that are no view's, unchecked; raises :class:`OnlineStoreUnavailable`."""
        return await self._fetch(keys)

    async def _fetch(self, keys: Sequence[bytes]) -> Values:
        return (await self._exchanged(keys))[0]

    async def _exchanged(self, keys: Sequence[bytes], lists: Sequence[ListCommand] = ()) -> tuple[Values, Replies]:
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


@lru_cache(maxsize=REMEMBERED)
def _key(view_key: str, join_keys: tuple[str, ...], entity: tuple[str, ...]) -> bytes:
    if len(entity) != len(join_keys):
        raise ValueError(f"{view_key} is of ({', '.join(join_keys)}), not of {len(entity)} parts")
    return entity_key(view_key, entity)
