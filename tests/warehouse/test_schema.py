"""Migrations go up, down and up again, from many processes; row-level security keeps tenants apart."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from conductor_features.views import BUILD_VIEWS, VIEWS, Field
from conductor_warehouse import schema
from conductor_warehouse.events import parse
from conductor_warehouse.ingestion import ingest, ingest_parsed
from conductor_warehouse.roles import bind
from conductor_workbench.embedded import EmbeddedPostgres
from machine import within
from warehouse.histories import START, Build, completed_event, events_of, random_history

TABLES = ["inbox", "builds", "completed_builds", "dead_letters", *(view.log_table for view in BUILD_VIEWS)]


_REFUSED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.WithCheckOptionViolation)


def _tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows if "yoyo" not in name}


def test_up_down_and_up_again_in_less_than_five_seconds(database_url: str) -> None:
    begin = time.monotonic()
    before = schema.migrate(database_url)
    assert (before.applied, before.current) == ((), False)
    assert set(TABLES) < _tables(database_url)
    assert schema.status(database_url).current
    schema.rollback(database_url)
    assert _tables(database_url) == set()
    assert schema.status(database_url).pending == before.pending
    schema.migrate(database_url)
    assert schema.migrate(database_url).current
    assert within(time.monotonic() - begin, 5)


def test_many_may_migrate_many_databases_at_once(embedded_postgres: EmbeddedPostgres) -> None:
    urls = [embedded_postgres.create_database(f"crowd_{number}") for number in range(3)]
    with ThreadPoolExecutor(9) as threads:
        list(threads.map(schema.migrate, urls * 3))
    assert all(schema.status(url).current for url in urls)


def test_a_migration_that_was_killed_leaves_no_lock(database_url: str) -> None:
    schema.migrate(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO yoyo_lock VALUES (1, now(), 1)")
    schema.rollback(database_url)
    schema.migrate(database_url)


def test_a_changed_view_needs_a_new_version(warehouse_url: str) -> None:
    key, view = next(iter(VIEWS.items()))
    changed = replace(view, fields=(*view.fields, Field("extra", "More", "1")))
    with pytest.raises(schema.SchemaMismatch, match="new version"):
        schema.migrate(warehouse_url, {key: changed})
    schema.migrate(warehouse_url, {"more": replace(changed, name="more")} | dict(VIEWS))


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises((schema.SchemaMismatch, psycopg.Error)):
        schema.migrate("mysql://somewhere/db")


def _as_tenant(connection: psycopg.Connection, role: str, tenant: str | None) -> None:
    if tenant is not None:
        bind(connection, role, tenant)
    else:
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        connection.execute("SET LOCAL search_path = conductor_tenant, public")


@pytest.mark.parametrize("role", ["conductor_ingest", "conductor_reader"])
def test_a_serving_role_sees_its_tenant_only(warehouse: psycopg.Connection, role: str) -> None:
    ingest(warehouse, [*events_of(random_history(1, 60)), b'{"tenantid": "acme"}', b'{"tenantid": "globex"}'])
    for table in TABLES:
        statement = sql.SQL("SELECT DISTINCT tenant_id FROM {}").format(sql.Identifier(table))
        assert {tenant for (tenant,) in warehouse.execute(statement)} == {"acme", "globex"}, table
        for tenant, seen in (("acme", [("acme",)]), ("nobody", []), ("", []), (None, [])):
            with warehouse.transaction():
                _as_tenant(warehouse, role, tenant)
                assert warehouse.execute(statement).fetchall() == seen, (table, tenant)


def test_a_serving_role_can_not_write_for_another_tenant(warehouse: psycopg.Connection) -> None:
    ingest(warehouse, events_of(random_history(1, 10)))
    attempts = [
        "INSERT INTO inbox (tenant_id, source, event_id, event_type, event_time, subject, data)"
        " VALUES ('globex', 's', 'x', 't', now(), '', '')",
        "UPDATE builds SET tenant_id = 'globex'",
        "INSERT INTO feature_log_tenant_load_v1 (tenant_id, event_timestamp, created)"
        " VALUES ('globex', '2026-03-01', now())",
        "INSERT INTO dead_letters (tenant_id, digest, event_id, event_source, reason, form, payload, truncated)"
        " VALUES ('globex', '', '', '', '', 'json', '', false)",
        "ALTER TABLE builds DISABLE ROW LEVEL SECURITY",
        "SELECT create_feature_log('x', '{tenant_id}', '{y}')",
        "DELETE FROM builds",
        "UPDATE materialization_cursors SET log_id = 0",
    ]
    for attempt in attempts:
        with pytest.raises(_REFUSED), warehouse.transaction():
            _as_tenant(warehouse, "conductor_ingest", "acme")
            warehouse.execute(attempt.encode())
    with warehouse.transaction():
        _as_tenant(warehouse, "conductor_ingest", "acme")
        assert warehouse.execute("UPDATE builds SET job_count = 1 WHERE tenant_id = 'globex'").rowcount == 0


def test_ingestion_for_a_tenant_runs_under_the_policy(warehouse: psycopg.Connection) -> None:
    build = Build("b1", START, START, duration=1.0)
    ingest(warehouse, [completed_event(replace(build, tenant="globex"))])
    result = ingest(warehouse, [completed_event(build), completed_event(replace(build, tenant="globex"))], "acme")
    assert (result.stored, result.dead_letter_count) == (1, 1)
    assert "tenantid" in result.dead_letters[0].reason
    assert warehouse.execute("SELECT DISTINCT tenant_id FROM dead_letters").fetchall() == [("acme",)]
    # Even an event that slipped past the reading is stopped by the database.
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        ingest_parsed(
            warehouse, [parse(completed_event(replace(build, tenant="globex", build_id="b2"), "other"))], "acme"
        )
    # What was set for the transaction ended with it.
    assert warehouse.execute("SELECT current_user, current_setting('conductor.tenant_id', true)").fetchone() == (
        "conductor",
        "",
    )


def test_a_login_that_is_granted_the_role_can_ingest(warehouse_url: str, warehouse: psycopg.Connection) -> None:
    warehouse.execute(
        "DO $$ BEGIN CREATE ROLE service LOGIN IN ROLE conductor_ingest; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    url = warehouse_url.replace("conductor@", "service@")
    builds = random_history(1, 30, tenants=("acme",))
    with psycopg.connect(url, autocommit=True) as connection:
        assert ingest(connection, events_of(builds), "acme").stored == len(events_of(builds))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SET ROLE conductor")
