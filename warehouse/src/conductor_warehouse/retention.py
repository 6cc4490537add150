"""How long tenants' data are kept, and the deletion of what is older.

Partitions and chunks hold rows of all tenants, so one is dropped whole only when it is beyond the horizon of every
tenant; what a single tenant's horizon has passed is deleted by tenant (a compressed chunk keeps a tenant's rows in
segments of their own, which are deleted without touching the others'). Statistics follow the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection, sql

EVERY_TENANT = "*"
"""Stands for all tenants without a retention of their own."""
_ROWS_AT_ONCE = 10_000

_SUBJECT_TIMES: Mapping[str, str] = {
    "inbox": "event_time",
    "dead_letters": "dead_letter_time",
    "builds": "coalesce(completed_time, queued_time)",
    "test_runs": "completed_time",
    "test_quarantines": "changed_time",
    "test_repositories": "latest_time",
    "quality_evaluations": "evaluated_time",
    "usage_reports": "measured_time",
    "deployments": "completed_time",
    "incidents": "greatest(opened_time, resolved_time)",
    "change_requests": "merged_time",
    "data_profiles": "received_date::timestamp AT TIME ZONE 'UTC'",
    "data_findings": "received_date::timestamp AT TIME ZONE 'UTC'",
    "parked_batches": "parked_time",
}
"""The ordinary tables that data are deleted from, and the moment that a row is of. Tenants themselves stay."""


@dataclass(frozen=True)
class Deleted:
    """What was, or would be, deleted from one table."""

    table: str
    rows: int
    """Rows deleted by tenant."""
    partitions: int
    """Partitions or chunks dropped whole."""


def show(connection: Connection[Any]) -> dict[str, timedelta]:
    """Each tenant's retention; those that are not there keep what ``*`` says, else everything."""
    return dict(connection.execute("SELECT tenant_id, retention FROM tenant_retention ORDER BY tenant_id").fetchall())


def put(connection: Connection[Any], tenant_id: str, retention: timedelta) -> None:
    """Set how long a tenant's data are kept, at least a day. What is older goes at the next :func:`run`."""
    connection.execute(
        "INSERT INTO tenant_retention VALUES (%s, %s)"
        " ON CONFLICT (tenant_id) DO UPDATE SET retention = excluded.retention",
        (tenant_id, retention),
    )


def clear(connection: Connection[Any], tenant_id: str) -> bool:
    """Forget a tenant's retention; returns whether it had one."""
    return connection.execute("DELETE FROM tenant_retention WHERE tenant_id = %s", (tenant_id,)).rowcount == 1


def horizons(
    connection: Connection[Any], tenant_ids: Iterable[str], now: datetime | None = None
) -> dict[str, datetime]:
    """The moment before which a tenant's data are not kept; tenants that keep everything are not there."""
    kept = show(connection)
    now = now or datetime.now(UTC)
    spans = {tenant: kept.get(tenant, kept.get(EVERY_TENANT)) for tenant in tenant_ids}
    return {tenant: now - span for tenant, span in spans.items() if span is not None}


def run(
    connection: Connection[Any],
    *,
    now: datetime | None = None,
    dry_run: bool = False,
    progress: Callable[[Deleted], None] = lambda _: None,
) -> list[Deleted]:
    """Delete what no tenant keeps any more. Safe to repeat, and to be killed: each step is a transaction of its own.

    Args:
        connection: the owner's, without a transaction under way.
        now: the present; the clock's by default.
        dry_run: only count.
        progress: told of each table when it is done.
    """
    tenants = [tenant for (tenant,) in connection.execute("SELECT DISTINCT tenant_id FROM inbox ORDER BY 1")]
    passed = horizons(connection, tenants, now)
    # Beyond this everybody's data are gone. Without a rule for every tenant there is no such moment.
    common = min(passed.values()) if passed and len(passed) == len(tenants) else None
    found = []
    for table, column in connection.execute("SELECT table_name, time_column FROM time_tables ORDER BY 1").fetchall():
        whole = _drop_partitions(connection, table, common, dry_run) if common is not None else 0
        rows = sum(_delete_rows(connection, table, sql.Identifier(column), *own, dry_run) for own in passed.items())
        found.append(Deleted(table, rows, whole))
        progress(found[-1])
    for table, expression in _SUBJECT_TIMES.items():
        rows = sum(_delete_rows(connection, table, sql.SQL(expression), *own, dry_run) for own in passed.items())
        found.append(Deleted(table, rows, 0))
        progress(found[-1])
    return found


def _delete_rows(
    connection: Connection[Any], table: str, time: sql.Composable, tenant_id: str, horizon: datetime, dry_run: bool
) -> int:
    condition = sql.SQL("tenant_id = %s AND {} < %s").format(time)
    if dry_run:
        statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(sql.Identifier(table), condition)
        row = connection.execute(statement, (tenant_id, horizon)).fetchone()
        return int(row[0]) if row else 0
    if table not in _SUBJECT_TIMES:
        statement = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table), condition)
        return connection.execute(statement, (tenant_id, horizon)).rowcount
    # Ordinary tables are written to at the same time: short transactions hold few locks.
    statement = sql.SQL(
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {} LIMIT %s))"
    ).format(condition, table=sql.Identifier(table))
    total = 0
    while count := connection.execute(statement, (tenant_id, horizon, _ROWS_AT_ONCE)).rowcount:
        total += count
    return total


def _drop_partitions(connection: Connection[Any], table: str, common: datetime, dry_run: bool) -> int:
    """Drop what lies before ``common`` as a whole; returns how many partitions or chunks."""
    if connection.execute("SELECT has_timescale()").fetchone() == (True,):
        function = "show_chunks" if dry_run else "drop_chunks"
        statement = sql.SQL("SELECT count(*) FROM {}({}::regclass, older_than => %s)").format(
            sql.Identifier(function), sql.Literal(table)
        )
        row = connection.execute(statement, (common,)).fetchone()
        return int(row[0]) if row else 0
    partitions = [
        name
        for name, end in connection.execute(
            """
            SELECT child.relname,
              substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \\(''(.*)''\\)')::timestamptz
            FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = %s::regclass
            """,
            (table,),
        ).fetchall()
        if end <= common
    ]
    if not dry_run:
        for name in partitions:
            # Statistics must hear of it: a dropped partition's rows fire no trigger.
            with connection.transaction():
                connection.execute("SELECT forget_statistics(%s, %s)", (table, name))
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    return len(partitions)
