"""Carries rows of the feature logs, and graphs of code, to the online store, as they are committed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast
from uuid import uuid4

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from conductor_features.clients import FAILURES, Client, open_client, position_keys
from conductor_features.filling import epoch_of, replaying_mark
from conductor_features.views import VIEWS, View
from conductor_features.writer import WriteRow, write_rows
from conductor_rpc import names
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_warehouse import statistics
from conductor_warehouse.code_graph.carrying import carry_graphs
from conductor_warehouse.cursors import Position, cursor, has_rows_beyond, save_cursor
from conductor_warehouse.features.log import CHANNEL

_LOG = logging.getLogger(__name__)
_ONE_WRITER = 0x7461696C2077  # advisory lock of whoever carries rows: "tail w"
_FIRST_RETRY_SECONDS = 0.1
_PENDING_SECONDS = 0.05
"""Pause while committed rows wait for a transaction that began before theirs and has not ended."""
_SETTLED_AT_ONCE = 5
"""Days of statistics that are settled between two looks at the logs."""
_STOP_SECONDS = 0.25
"""How often a waiting writer looks whether it should stop."""
_REDIS_TIMEOUT_SECONDS = 5.0

# KEYS[1] position; ARGV: the position that it must hold, the new one.
_MOVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end
return 0
"""


class _PositionLost(Exception):
    """Redis no longer holds the position that was written there: it lost everything, or somebody else wrote."""


class TailingWriter:
    """Runs until it is told to stop, through restarts of Redis and PostgreSQL. Of several, one works."""

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        *,
        views: Mapping[str, View] = VIEWS,
        batch_size: int = 5_000,
        poll_seconds: float = 1.0,
        retry_seconds: float = 5.0,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._telemetry = telemetry
        self._complete_since: float | None = None
        telemetry.observe(names.ONLINE_BEHIND, lambda: self.behind_seconds, unit="s")
        for view in views:
            telemetry.count(names.ONLINE_ROWS, {names.VIEW: view}, 0)
        self._database_url, self._redis_url = database_url, redis_url
        self._views = tuple(views.values())
        self._batch_size, self._poll_seconds, self._retry_seconds = batch_size, poll_seconds, retry_seconds

    @property
    def behind_seconds(self) -> float | None:
        """Since all that was committed was online, as far as is known; None for a writer that waits for its turn."""
        complete = self._complete_since
        return None if complete is None else time.monotonic() - complete

    def run(self, stop: threading.Event) -> None:
        """Carry rows until ``stop`` is set. A batch under way is finished first."""
        pause = _FIRST_RETRY_SECONDS
        while not stop.is_set():
            try:
                with self._connected() as (reading, listening, redis):
                    while not stop.is_set() and not self._may_write(reading):
                        stop.wait(min(self._poll_seconds, _STOP_SECONDS))
                    self._complete_since = self._complete_since or time.monotonic()
                    while not stop.is_set():
                        began = time.monotonic()
                        pending = self._carry_all(reading, redis, stop)
                        if not pending:
                            self._complete_since = began
                        pause = _FIRST_RETRY_SECONDS
                        if not pending:
                            # In the pauses between events, a few at a time: features come first.
                            statistics.settle(reading, _SETTLED_AT_ONCE)
                        _wait(listening, stop, _PENDING_SECONDS if pending else self._poll_seconds)
            except (psycopg.Error, *FAILURES) as error:
                # Every kind: a database that is being migrated or restored lacks tables for a while.
                _LOG.warning("feature rows are not carried, trying again in %.1f s: %s", pause, error)
                stop.wait(pause)
                pause = min(2 * pause, self._retry_seconds)

    def catch_up(self, stop: threading.Event | None = None) -> None:
        """Carry what is committed now, and return. Raises psycopg.Error or one of ``clients.FAILURES``."""
        stop = stop or threading.Event()
        with self._connected() as (reading, _, redis):
            while self._carry_all(reading, redis, stop) and not stop.wait(_PENDING_SECONDS):
                pass

    @contextmanager
    def _connected(self) -> Iterator[tuple[Connection[Any], Connection[Any], Client]]:
        # Notifications have a connection of their own, so that none can slip past while rows are being read.
        with (
            psycopg.connect(self._database_url, autocommit=True, connect_timeout=5) as reading,
            psycopg.connect(self._database_url, autocommit=True, connect_timeout=5) as listening,
            open_client(self._redis_url, _REDIS_TIMEOUT_SECONDS) as redis,
        ):
            listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            yield reading, listening, redis

    def _may_write(self, reading: Connection[Any]) -> bool:
        row = reading.execute("SELECT pg_try_advisory_lock(%s)", (_ONE_WRITER,)).fetchone()
        return bool(row and row[0])

    def _carry_all(self, reading: Connection[Any], redis: Client, stop: threading.Event) -> bool:
        """Carry what can be read; returns whether committed rows wait for older transactions to end."""
        pending = False
        for view in self._views:
            try:
                pending |= self._carry(reading, redis, view, stop)
            except _PositionLost:
                pending = True  # look again at once: the position is gone now, so everything is written anew
        carry_graphs(reading, redis)
        return pending

    def _carry(self, reading: Connection[Any], redis: Client, view: View, stop: threading.Event) -> bool:
        epoch, carried = cursor(reading, view)
        epoch = epoch_of(view, epoch)
        stored = {key: cast(bytes | None, redis.get(key)) or b"" for key in position_keys(redis, view.key)}
        positions = [_parse(held, epoch) for held in stored.values()]
        if None in positions:
            stored = self._replay(reading, redis, view, epoch, carried)
            positions = []
        # A replica of Redis that took over may lag behind the database's cursor, and so may the cursor after a crash.
        position = min([carried, *filter(None, positions)])
        while not stop.is_set():
            began = time.monotonic()
            rows, end, age_seconds = self._read(reading, view, position)
            if not rows:
                return has_rows_beyond(reading, view, position)
            write_rows(redis, view, rows)
            self._telemetry.took(names.ONLINE_DELAY, age_seconds + time.monotonic() - began, {})
            self._telemetry.count(names.ONLINE_ROWS, {names.VIEW: view.key}, len(rows))
            position = end
            stored = _move(redis, stored, _format(epoch, position))
            save_cursor(reading, view, position)
        return False

    def _replay(
        self, reading: Connection[Any], redis: Client, view: View, epoch: str, carried: Position
    ) -> dict[bytes, bytes]:
        """Write each entity's latest row among those carried before; returns the positions as stored in Redis."""
        # A mark first, replaced by the position only if it is still there at the end: if Redis restarts in between,
        # both the mark and the rows written before are gone.
        mark = replaying_mark()
        marks = dict.fromkeys(position_keys(redis, view.key), mark)
        for key in marks:
            redis.set(key, mark)
        count = 0
        for rows in self._latest(reading, view, carried):
            write_rows(redis, view, rows)
            count += len(rows)
        stored = _move(redis, marks, _format(epoch, carried))
        _LOG.info("%s: wrote the latest rows of %d entities to a Redis that did not have them", view.key, count)
        return stored

    def _latest(self, reading: Connection[Any], view: View, carried: Position) -> Iterator[list[WriteRow]]:
        statement = sql.SQL(
            "SELECT DISTINCT ON ({keys}) {keys}, event_timestamp, {fields} FROM {log}"
            " WHERE (xid, log_id) <= (%s::xid8, %s)"
            " ORDER BY {descending}, event_timestamp DESC, created DESC"
        ).format(
            descending=sql.SQL(", ").join(sql.SQL("{} DESC").format(sql.Identifier(key)) for key in view.entity),
            **_parts(view),
        )
        with reading.transaction(), reading.cursor(f"replay_{uuid4().hex}") as latest:
            latest.execute(statement, (str(carried.xid), carried.log_id))
            while rows := latest.fetchmany(self._batch_size):
                yield list(_write_rows(view, rows))

    def _read(self, reading: Connection[Any], view: View, position: Position) -> tuple[list[WriteRow], Position, float]:
        """The next rows, the position behind them, and how long ago the oldest of them became known."""
        statement = sql.SQL(
            "SELECT {keys}, event_timestamp, {fields},"
            " extract(epoch FROM clock_timestamp() - created)::double precision, xid::text, log_id FROM {log}"
            " WHERE (xid, log_id) > (%s::xid8, %s) AND xid < pg_snapshot_xmin(pg_current_snapshot())"
            " ORDER BY xid, log_id LIMIT %s"
        ).format(**_parts(view))
        parameters = (str(position.xid), position.log_id, self._batch_size)
        rows = reading.execute(statement, parameters, binary=True).fetchall()
        end = Position(int(rows[-1][-2]), rows[-1][-1]) if rows else position
        return list(_write_rows(view, rows)), end, max((row[-3] for row in rows), default=0.0)


def tail(
    database_url: str, redis_url: str, stop: threading.Event, *, poll_seconds: float = 1.0, retry_seconds: float = 5.0
) -> None:
    """Carry feature rows from the warehouse to Redis until ``stop`` is set."""
    TailingWriter(database_url, redis_url, poll_seconds=poll_seconds, retry_seconds=retry_seconds).run(stop)


def _wait(listening: Connection[Any], stop: threading.Event, seconds: float) -> None:
    """Return when rows were appended, when the time is over, or when asked to stop."""
    deadline = time.monotonic() + seconds
    while not stop.is_set() and (remaining := deadline - time.monotonic()) > 0:
        for _ in listening.notifies(timeout=min(remaining, _STOP_SECONDS), stop_after=1):
            return


def _format(epoch: str, position: Position) -> bytes:
    return f"{epoch} {position.xid} {position.log_id}".encode()


def _parse(stored: bytes, epoch: str) -> Position | None:
    """The position that Redis holds; None where it holds none, or that of another database or of a broken replay."""
    parts = stored.decode(errors="replace").split()
    if len(parts) != 3 or parts[0] != epoch or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return Position(int(parts[1]), int(parts[2]))


def _move(redis: Client, stored: dict[bytes, bytes], new: bytes) -> dict[bytes, bytes]:
    for key, old in stored.items():
        if old != new and not redis.eval(_MOVE, 1, key, old, new):
            raise _PositionLost
    return dict.fromkeys(stored, new)


def _parts(view: View) -> dict[str, sql.Composable]:
    return {
        "keys": sql.SQL(", ").join(map(sql.Identifier, view.entity)),
        "fields": sql.SQL(", ").join(map(sql.Identifier, view.field_names)),
        "log": sql.Identifier(view.log_table),
    }


def _write_rows(view: View, rows: Iterable[TupleRow]) -> Iterator[WriteRow]:
    keys, fields = len(view.entity), len(view.fields)
    for row in rows:
        moment: datetime = row[keys]
        yield row[:keys], moment, row[keys + 1 : keys + 1 + fields]
