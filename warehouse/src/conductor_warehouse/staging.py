"""Brings columns to the database: an Arrow batch becomes a temporary table, from which statements insert and join.

COPY in binary form is the fastest way in, but row-level security refuses COPY into a tenant's tables, and neither
conflicts nor joins can be handled in it. So rows are copied into a temporary table of the session, which empties itself
at the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, cast

import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import Connection, sql

from conductor_warehouse.times import to_microseconds

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
BYTES = pa.binary()
FLOAT = pa.float64()
INTEGER = pa.int32()
BIG_INTEGER = pa.int64()
BOOLEAN = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")

Schema = Mapping[str, pa.DataType]
"""Columns and their types."""


def stage(connection: Connection[Any], name: str, batch: pa.RecordBatch) -> sql.Identifier:
    """Fill the session's temporary table ``staged_<name>`` with the batch; returns the table's name.

    A name stands for one schema. The table holds one batch at a time, until the transaction ends.

    Copying gives the transaction its number, so it comes after the tenants' locks (see ingestion.py).
    """
    encoder = ArrowToPostgresBinaryEncoder(batch.schema)
    table = sql.Identifier(f"staged_{name}")
    _create(connection, f"staged_{name}", encoder)
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)) as copy,
    ):
        copy.write(encoder.write_header())
        copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())
    return table


def batch_of(schema: Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Rows as an Arrow batch."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.record_batch(
        {name: _array(values, kind) for (name, kind), values in zip(schema.items(), columns, strict=True)}
    )


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind == TIME:
        # Arrow would import pandas to look at datetimes.
        moments = [None if moment is None else to_microseconds(moment) for moment in values]
        return pa.array(moments, BIG_INTEGER).cast(TIME)
    return pa.array(values, kind)


def _create(connection: Connection[Any], name: str, encoder: ArrowToPostgresBinaryEncoder) -> None:
    """Create the table if this session has not got it, or empty it if this transaction has used it."""
    known = connection.execute("SELECT to_regclass('pg_temp.' || %s)", (name,)).fetchone()
    if known != (None,):
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("pg_temp", name)))
        return
    columns = sql.SQL(", ").join(
        [
            sql.Composed([sql.Identifier(column.name), sql.SQL(f" {_type(column.data_type.ddl())}")])
            for column in encoder.schema().columns
        ]
    )
    statement = sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DELETE ROWS").format(sql.Identifier(name), columns)
    connection.execute(statement)
    # The session may act in another role next. Nobody else can reach its temporary tables.
    connection.execute(sql.SQL("GRANT SELECT, INSERT, DELETE ON {} TO PUBLIC").format(sql.Identifier(name)))


def _type(told: str | None) -> LiteralString:
    """The encoder takes every time for one without a zone, whose meaning would be the session's."""
    return cast(LiteralString, "TIMESTAMPTZ" if told == "TIMESTAMP" else told)
