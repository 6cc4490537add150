"""How far the rows of each view's log have been carried to the online store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, sql

from conductor_features.views import VIEWS, View


@dataclass(frozen=True, order=True)
class Position:
    """A place in a log: rows are read in the order of their transactions' numbers, then of their own.

    The row's own number would not do: it is drawn before the commit, so a row with a lower number may become visible
    after one with a higher. Transactions are no better by themselves, but PostgreSQL tells which is the oldest one
    still under way (``pg_snapshot_xmin``): those below it have all ended, whichever way, and no further row can ever
    come from them. Whoever reads just the rows below it, in this order, misses none and never waits for a lock.
    """

    xid: int
    log_id: int


@dataclass(frozen=True)
class Lag:
    """How far the online store is behind one view's log."""

    view: str
    rows: int
    """Committed rows that the writer has not carried."""
    seconds: float
    """Since the oldest of them was written; 0 for none."""


def lags(connection: Connection[Any], views: Mapping[str, View] = VIEWS) -> list[Lag]:
    """How far the tailing writer is behind, by view."""
    found = []
    for view in views.values():
        _, carried = cursor(connection, view)
        statement = sql.SQL(
            "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created)), 0)::double precision"
            " FROM {} WHERE (xid, log_id) > (%s::xid8, %s)"
        ).format(sql.Identifier(view.log_table))
        row = connection.execute(statement, (str(carried.xid), carried.log_id)).fetchone()
        assert row is not None  # noqa: S101 - an aggregate has one row
        found.append(Lag(view.key, row[0], row[1]))
    return found


def cursor(connection: Connection[Any], view: View) -> tuple[str, Position]:
    """The database's epoch, and how far a view's rows have been carried."""
    row = connection.execute(
        "SELECT epoch::text, xid::text, log_id FROM materialization_cursors WHERE view_key = %s", (view.key,)
    ).fetchone()
    if row is None:
        raise psycopg.ProgrammingError(f"view {view.key} has no log: run `conductor warehouse migrate`")
    return row[0], Position(int(row[1]), row[2])


def save_cursor(connection: Connection[Any], view: View, position: Position) -> None:
    """Note how far a view's rows have been carried."""
    connection.execute(
        "UPDATE materialization_cursors SET xid = %s::xid8, log_id = %s, updated_time = clock_timestamp()"
        " WHERE view_key = %s",
        (str(position.xid), position.log_id, view.key),
    )


def has_rows_beyond(connection: Connection[Any], view: View, position: Position) -> bool:
    """Whether there are committed rows behind a position."""
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE (xid, log_id) > (%s::xid8, %s))")
    row = connection.execute(
        statement.format(sql.Identifier(view.log_table)), (str(position.xid), position.log_id)
    ).fetchone()
    return bool(row and row[0])
