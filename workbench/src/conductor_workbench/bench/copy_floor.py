"""The floor of ingestion: the rows that events have become, written once more by nothing but psycopg's COPY."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

from conductor_workbench.bench.figures import Figures, significant

_SUBJECTS = ("inbox", "builds", "test_runs")
_MOST_ROWS = 200_000
"""Of a table, that are copied: a larger one's time is scaled up."""


def measure_floor(connection: psycopg.Connection[Any]) -> Figures:
    """Seconds for all rows of the tables that events end in.

    ``rows``: each row a tuple of Python's, into tables with the same indexes, as a program would write that does
    nothing else. ``blocks``: encoded beforehand, into tables without an index: what the server takes at the most.
    """
    rows = blocks = 0.0
    kept = connection.execute("SELECT table_name FROM time_tables ORDER BY 1").fetchall()
    for name in (*_SUBJECTS, *(name for (name,) in kept)):
        by_row, by_block = _table(connection, name)
        rows += by_row
        blocks += by_block
    return {"rows_seconds": significant(rows), "blocks_seconds": significant(blocks)}


def _table(connection: psycopg.Connection[Any], name: str) -> tuple[float, float]:
    table = sql.Identifier(name)
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
    count = int(row[0]) if row else 0
    if not count:
        return 0.0, 0.0
    columns = [
        column
        for (column,) in connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' AND atttypid <> 'xid8'::regtype ORDER BY attnum",
            (name,),
        )
    ]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    source = sql.SQL("SELECT {} FROM {} LIMIT {}").format(names, table, sql.Literal(_MOST_ROWS))
    found = connection.execute(source).fetchall()
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(source)) as copy:
            content = b"".join(bytes(block) for block in copy)
        seconds = []
        for like in ("INCLUDING ALL", "INCLUDING GENERATED INCLUDING DEFAULTS"):
            connection.execute(sql.SQL("CREATE TABLE floor (LIKE {} {})").format(table, sql.SQL(like)))
            target = sql.SQL("COPY floor ({}) FROM STDIN").format(names)
            begin = time.perf_counter()
            if like == "INCLUDING ALL":
                with cursor.copy(target) as copy:
                    for values in found:
                        copy.write_row(values)
            else:
                with cursor.copy(target + sql.SQL(" (FORMAT binary)")) as copy:
                    copy.write(content)
            seconds.append(time.perf_counter() - begin)
            connection.execute("DROP TABLE floor")
    scale = count / len(found)
    return seconds[0] * scale, seconds[1] * scale
