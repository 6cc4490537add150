"""Statistics by hour and day: they are right at any time, and read faster where they are settled."""

from __future__ import annotations

import sys
from typing import Any

from psycopg import Connection, sql


def names(connection: Connection[Any]) -> list[str]:
    """The statistics there are."""
    return [name for (name,) in connection.execute("SELECT name FROM statistics ORDER BY name")]


def settle(connection: Connection[Any], limit: int) -> int:
    """Settle at most ``limit`` changed days of a tenant; returns how many. TimescaleDB's own policies do so there."""
    if connection.execute("SELECT has_timescale()").fetchone() == (True,):
        return 0
    count = 0
    while count < limit and connection.execute("SELECT refresh_statistics()").fetchone() == (True,):
        count += 1
    return count


def refresh(connection: Connection[Any]) -> int:
    """Settle what has changed; returns how many days of a tenant (with TimescaleDB: how many aggregates).

    Safe beside ingestion and beside others who refresh. Days whose facts are being changed are left for the next time.

    Args:
        connection: the owner's, without a transaction under way.
    """
    if connection.execute("SELECT has_timescale()").fetchone() == (True,):
        for name in names(connection):
            # Not a function's call: it commits by itself. Only what has changed is computed.
            connection.execute(sql.SQL("CALL refresh_continuous_aggregate({}, NULL, NULL)").format(sql.Literal(name)))
        return len(names(connection))
    return settle(connection, sys.maxsize)


def dirty_days(connection: Connection[Any]) -> int:
    """Days of a tenant that are not settled; with TimescaleDB, which keeps that to itself, 0."""
    row = connection.execute("SELECT count(*) FROM statistics_dirty").fetchone()
    return int(row[0]) if row else 0
