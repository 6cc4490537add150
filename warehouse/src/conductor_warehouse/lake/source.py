"""What the lake reads of the warehouse: all of one export from one snapshot, as Arrow batches.

A position is a snapshot of PostgreSQL's own (``pg_snapshot``): the transactions that it sees, exactly. What was
committed since is what the position does not see, whatever the order of numbers and commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Self

import adbc_driver_postgresql.dbapi  # type: ignore[import-untyped]
import psycopg
import pyarrow as pa
from psycopg import sql

from conductor_warehouse import retention
from conductor_warehouse.lake.tables import UNTOLD_COLUMNS, LakeTable, arrow_schema, tables

DAY = "__day"
"""The column of :meth:`Source.rows` that tells which day a row belongs to."""
_NEARLY_A_DAY = timedelta(days=1) - timedelta(microseconds=1)


class Source:
    """The warehouse as of one moment. Takes the owner's login, which sees all tenants."""

    def __init__(self, database_url: str) -> None:
        """Raises psycopg.Error when the warehouse does not answer or lacks tables; use as a context."""
        self._database_url = database_url
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._connection = stack.enter_context(psycopg.connect(self._database_url))
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
            row = self._connection.execute(
                "SELECT pg_current_snapshot()::text, lake_source_identity(), now(), pg_export_snapshot()"
            ).fetchone()
            assert row is not None  # noqa: S101 - a SELECT without FROM has one row
            self.snapshot: str = row[0]
            self.identity: str = row[1]
            self.time: datetime = row[2]
            self._connection.execute(
                "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0"
            )
            # A second connection, which reads rows as Arrow batches, of the same snapshot.
            reading = stack.enter_context(adbc_driver_postgresql.dbapi.connect(self._database_url, autocommit=True))
            self._cursor = stack.enter_context(reading.cursor())
            for statement in (
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                f"SET TRANSACTION SNAPSHOT '{row[3]}'",
                "SET LOCAL idle_in_transaction_session_timeout = 0",
                "SET LOCAL statement_timeout = 0",
                "SET LOCAL work_mem = '64MB'",
            ):
                self._cursor.execute(statement)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tables(self) -> tuple[LakeTable, ...]:
        """The tables that the lake keeps."""
        return tables(dict(self._connection.execute("SELECT view_key, entity FROM feature_views").fetchall()))

    def schema(self, table: LakeTable) -> pa.Schema:
        """Columns of a table's files. Raises ValueError for a column that has no form in the lake."""
        columns = self._connection.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (table.source,),
        ).fetchall()
        return arrow_schema([(name, kind) for name, kind in columns if name not in UNTOLD_COLUMNS])

    def tenants(self, table: LakeTable) -> list[str]:
        """Tenants that have rows."""
        statement = sql.SQL('SELECT DISTINCT tenant_id COLLATE "C" FROM {} ORDER BY 1')
        return [tenant for (tenant,) in self._connection.execute(statement.format(sql.Identifier(table.source)))]

    def changed(self, table: LakeTable, position: str) -> dict[str, set[date]]:
        """Days of tenants of which something was committed that the position does not see."""
        statement: sql.Composable
        if table.is_log:
            statement = sql.SQL(
                "SELECT DISTINCT tenant_id, {day} FROM {table} WHERE xid >= pg_snapshot_xmin(%(position)s::pg_snapshot)"
                " AND NOT pg_visible_in_snapshot(xid, %(position)s::pg_snapshot)"
            ).format(day=_day_of(table), table=sql.Identifier(table.source))
        else:
            statement = sql.SQL(
                "SELECT tenant_id, day FROM lake_changes WHERE table_name = %(table)s"
                " AND NOT pg_visible_in_snapshot(xid, %(position)s::pg_snapshot)"
            )
        found: dict[str, set[date]] = {}
        for tenant, day in self._connection.execute(statement, {"position": position, "table": table.name}):
            found.setdefault(tenant, set()).add(day)
        return found

    def horizons(self, tenant_ids: Iterable[str]) -> Mapping[str, date]:
        """The first day that is kept whole of tenants whose history is not kept for ever.

        A day that is kept in part is left out: the warehouse deletes its rows in the course of the day, and feature
        logs do not tell that rows were deleted.
        """
        passed = retention.horizons(self._connection, tenant_ids, self.time)
        return {tenant: (moment.astimezone(UTC) + _NEARLY_A_DAY).date() for tenant, moment in passed.items()}

    def rows(
        self, table: LakeTable, tenant_id: str, schema: pa.Schema, first: date | None, last: date | None
    ) -> Iterator[pa.RecordBatch]:
        """Rows from the first day to the last (None: without end), by day and in the table's order.

        Each batch has the columns of ``schema`` and :data:`DAY`.
        """
        time = sql.SQL(table.time)
        conditions = [sql.SQL("tenant_id = {}").format(sql.Literal(tenant_id))]
        if first is not None:
            conditions.append(sql.SQL("{} >= {}").format(time, sql.Literal(_midnight(first))))
        if last is not None:
            conditions.append(sql.SQL("{} < {}").format(time, sql.Literal(_midnight(last + timedelta(days=1)))))
        collated = [
            sql.SQL('{} COLLATE "C"' if schema.field(name).type == pa.string() else "{}").format(sql.Identifier(name))
            for name in table.order
        ]
        statement = sql.SQL(
            "SELECT {columns}, {day} AS {name} FROM {table} WHERE {conditions} ORDER BY {order}"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, schema.names)),
            day=_day_of(table),
            name=sql.Identifier(DAY),
            table=sql.Identifier(table.source),
            conditions=sql.SQL(" AND ").join(conditions),
            order=sql.SQL(", ").join([sql.Identifier(DAY), *collated]),
        )
        self._cursor.execute(statement.as_string(self._connection))
        wanted = schema.append(pa.field(DAY, pa.date32()))
        for batch in self._cursor.fetch_record_batch():
            yield batch.cast(wanted)


def _day_of(table: LakeTable) -> sql.Composed:
    return sql.SQL("(({}) AT TIME ZONE 'UTC')::date").format(sql.SQL(table.time))


def _midnight(day: date) -> str:
    return f"{day.isoformat()} 00:00:00+00"
