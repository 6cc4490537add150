"""Partitions of the tables that are kept by time."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def ensure(connection: Connection[Any], table: str, first: int, last: int) -> None:
    """Make what ``table`` needs for rows from ``first`` to ``last``, both in microseconds since 1970.

    Nothing is remembered here: a partition that this transaction made is gone if it does not commit.
    """
    connection.execute(
        "SELECT ensure_partitions(%s, 'epoch'::timestamptz + %s * interval '1 microsecond',"
        " 'epoch'::timestamptz + %s * interval '1 microsecond')",
        (table, first, last),
    )
