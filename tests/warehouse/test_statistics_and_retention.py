"""Statistics equal what the facts say, retention takes the right rows: on plain PostgreSQL and on TimescaleDB alike."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from conductor_warehouse import retention, statistics
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.roles import bind
from warehouse.catalogue import SUBJECT_TABLES, TENANTS, random_events
from warehouse.histories import START, latest_rows  # noqa: F401
from warehouse.variants import is_timescale, variant, variant_warehouse  # noqa: F401

NAMES = [f"{kind}_{unit}_stats" for kind in ("builds", "quality", "tests", "usage") for unit in ("daily", "hourly")]
DAY = timedelta(days=1)


def _rows(connection: psycopg.Connection, name: str) -> list[tuple[Any, ...]]:
    return sorted(connection.execute(f"SELECT * FROM {name}".encode()).fetchall(), key=repr)  # noqa: S608


def _expected(connection: psycopg.Connection, name: str) -> list[tuple[Any, ...]]:
    """The definition over all facts, without anything stored."""
    [query] = connection.execute(
        "SELECT statistics_query(statistics, 'true') FROM statistics WHERE name = %s", (name,)
    ).fetchone() or [""]
    return sorted(connection.execute(query.encode()).fetchall(), key=repr)


def _assert_right(connection: psycopg.Connection) -> None:
    for name in NAMES:
        expected = _expected(connection, name)
        assert expected, name
        assert _rows(connection, name) == expected, name


def test_statistics_are_what_the_facts_say(variant_warehouse: psycopg.Connection) -> None:  # noqa: F811
    connection = variant_warehouse
    assert statistics.names(connection) == NAMES
    events = random_events(5, 240)
    ingest(connection, events[:150])
    _assert_right(connection)  # nothing is settled yet
    assert statistics.refresh(connection) > 0
    _assert_right(connection)
    ingest(connection, random.Random(1).sample(events, 240))  # late ones, corrections, duplicates
    if not is_timescale(connection):
        assert statistics.dirty_days(connection) > 0
        _assert_right(connection)  # exact even before they are settled
    statistics.refresh(connection)
    assert statistics.dirty_days(connection) == 0
    _assert_right(connection)


def test_statistics_show_a_tenant_its_own(variant_warehouse: psycopg.Connection) -> None:  # noqa: F811
    ingest(variant_warehouse, random_events(5, 240))
    for name in (*NAMES, "completed_builds", "test_results", "quality_scores", "usage_measurements"):
        for tenant, seen in (("acme", {"acme"}), ("nobody", set())):
            with variant_warehouse.transaction():
                bind(variant_warehouse, "conductor_reader", tenant)
                found = variant_warehouse.execute(f"SELECT DISTINCT tenant_id FROM {name}".encode())  # noqa: S608
                assert {one for (one,) in found} == seen, (name, tenant)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), variant_warehouse.transaction():
            variant_warehouse.execute("SET LOCAL ROLE conductor_reader")
            variant_warehouse.execute(f"SELECT count(*) FROM public.{name}".encode())  # noqa: S608


def _oldest(connection: psycopg.Connection, tenant: str) -> dict[str, datetime | None]:
    tables = connection.execute("SELECT table_name, time_column FROM time_tables").fetchall()
    return {
        table: (
            connection.execute(f"SELECT min({column}) FROM {table} WHERE tenant_id = %s", (tenant,)).fetchone()  # noqa: S608
            or [None]
        )[0]
        for table, column in tables
    }


def _counts(connection: psycopg.Connection, tenant: str) -> dict[str, int]:
    tables = [name for (name,) in connection.execute("SELECT table_name FROM time_tables")]
    return {
        table: (connection.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", (tenant,)).fetchone() or [0])[  # noqa: S608
            0
        ]
        for table in (*SUBJECT_TABLES, *tables)
    }


def test_retention_takes_a_tenants_own_old_rows_and_nothing_else(variant_warehouse: psycopg.Connection) -> None:  # noqa: F811
    connection = variant_warehouse
    events = random_events(8, 400)
    ingest(connection, events)
    now = START + 20 * DAY
    horizon = now - 10 * DAY
    others = _counts(connection, "globex")
    before = _counts(connection, "acme")
    retention.put(connection, "acme", 10 * DAY)

    planned = {deleted.table: deleted.rows for deleted in retention.run(connection, now=now, dry_run=True)}
    assert _counts(connection, "acme") == before
    done = retention.run(connection, now=now)
    assert {deleted.table: deleted.rows for deleted in done} == planned
    assert planned["inbox"] > 0 and planned["test_results"] > 0 and planned["feature_log_test_history_v2"] > 0
    assert all(oldest is None or oldest >= horizon for oldest in _oldest(connection, "acme").values())
    assert _counts(connection, "globex") == others
    assert all(
        count < before[table]
        for table, count in _counts(connection, "acme").items()
        if before[table] and table in {"inbox", "builds"}
    )
    assert sum(deleted.rows for deleted in retention.run(connection, now=now)) == 0
    statistics.refresh(connection)
    _assert_right(connection)


def test_what_nobody_keeps_is_dropped_in_whole_partitions(variant_warehouse: psycopg.Connection) -> None:  # noqa: F811
    connection = variant_warehouse
    ingest(connection, random_events(8, 240))
    statistics.refresh(connection)
    retention.put(connection, retention.EVERY_TENANT, 30 * DAY)
    now = datetime(2029, 1, 1, tzinfo=UTC)
    retention.put(connection, TENANTS[0], 20_000 * DAY)
    assert all(deleted.partitions == 0 for deleted in retention.run(connection, now=now))
    assert retention.clear(connection, TENANTS[0])
    done = {deleted.table: deleted for deleted in retention.run(connection, now=now)}
    assert done["test_results"].partitions > 0
    assert done["feature_log_pipeline_builds_v1"].partitions > 0
    counts = _counts(connection, TENANTS[0])
    assert {table: count for table, count in counts.items() if count} == {"tenants": counts["tenants"]}
    statistics.refresh(connection)
    for name in NAMES:
        assert _rows(connection, name) == [], name


def test_events_older_than_the_retention_are_told_and_not_stored(variant_warehouse: psycopg.Connection) -> None:  # noqa: F811
    connection = variant_warehouse
    retention.put(connection, "acme", DAY)
    events = random_events(8, 60)
    result = ingest(connection, events)
    assert result.expired > 0 and result.stored > 0
    assert (result.received, result.stored + result.expired + result.duplicates) == (60, 60)
    assert connection.execute("SELECT DISTINCT tenant_id FROM inbox").fetchall() == [("globex",)]


def test_compressed_chunks_take_late_events_corrections_and_retention(variant_warehouse: psycopg.Connection) -> None:  # noqa: F811
    connection = variant_warehouse
    if not is_timescale(connection):
        pytest.skip("native partitions are not compressed")
    events = random_events(9, 240)
    ingest(connection, events[::2])
    compressed = 0
    for (table,) in connection.execute("SELECT table_name FROM time_tables").fetchall():
        chunks = connection.execute("SELECT count(compress_chunk(c)) FROM show_chunks(%s::regclass) AS c", (table,))
        compressed += (chunks.fetchone() or [0])[0]
    assert compressed > 5
    for tenant in TENANTS:
        own = [event for event in events if f'"tenantid": "{tenant}"'.encode() in event]
        ingest(connection, own, tenant)
    statistics.refresh(connection)
    _assert_right(connection)
    retention.put(connection, "acme", 2 * DAY)
    now = START + 20 * DAY
    retention.run(connection, now=now)
    assert all(oldest is None or oldest >= now - 2 * DAY for oldest in _oldest(connection, "acme").values())
