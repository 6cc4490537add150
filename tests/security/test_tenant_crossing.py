"""S5, in the database: bound to one tenant, nothing of another is seen or changed, whatever is there to be asked.

What there is to ask comes from PostgreSQL's catalogue, so a new table, view or function is covered as soon as a
migration makes it. Row-level security guards against code that forgets the tenant: who may run statements of their own
may also name another tenant (it is a session's setting), or take the login's own role back. What they must not get are
rights that the role does not have: hence the tests of functions that run as their owner.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conductor_features.views import VIEWS
from conductor_warehouse import retention, schema, statistics
from conductor_warehouse.code_graph.checkout import Checkout
from conductor_warehouse.code_graph.indexing import index
from conductor_warehouse.features.backfill import backfill
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.roles import INGEST_ROLE, READER_ROLE, bind
from conductor_workbench.embedded import EmbeddedPostgres
from databases import copy_of, seal
from security.database_objects import functions, relations
from security.intruder import MINE, OTHER, Intruder
from warehouse.catalogue import random_events
from warehouse.histories import START, Build, completed_event

ROLES = (INGEST_ROLE, READER_ROLE)


@pytest.fixture(scope="module")
def filled(embedded_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a database with rows of both tenants in every table that has tenants; only copied from."""
    url = embedded_postgres.create_database("crossing")
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        retention.put(connection, MINE, timedelta(days=3_000))
        retention.put(connection, OTHER, timedelta(days=4_000))
        ingest(connection, random_events(31, 400, (MINE, OTHER)))
        statistics.refresh(connection)
        ingest(connection, random_events(32, 60, (MINE, OTHER)))  # under other names: some days are to settle again
        ingest(connection, [json.dumps({"tenantid": tenant}).encode() for tenant in (MINE, OTHER)])
        for key in VIEWS:
            backfill(connection, key)
        for tenant in (MINE, OTHER):
            _park(connection, tenant)
            _index(connection, tenant, tmp_path_factory.mktemp("checkout"))
    seal(embedded_postgres, "crossing")
    return "crossing"


def _park(connection: psycopg.Connection[Any], tenant: str) -> None:
    """A batch whose durations are in another unit than before."""
    for factor in (1, 1000):
        builds = [
            Build(f"p{factor}-{number}", queued, queued + timedelta(days=2), "SUCCESS", 60.0 * factor + number % 7,
                  tenant, "shop", "parked")
            for number in range(250)
            for queued in [START + timedelta(days=10 * (factor > 1), minutes=number)]
        ]  # fmt: skip
        result = ingest(connection, [completed_event(build) for build in builds])
    assert result.parked == 250


def _index(connection: psycopg.Connection[Any], tenant: str, checkout: Path) -> None:
    (checkout / "module.py").write_text("import other\n\n\ndef function():\n    pass\n")
    index(connection, tenant, "shop", Checkout(checkout), commit="c1")


@pytest.fixture
def database(embedded_postgres: EmbeddedPostgres, filled: str) -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection to a copy of it."""
    with copy_of(embedded_postgres, filled) as url, psycopg.connect(url, autocommit=True) as owner:
        yield owner


def test_every_table_with_tenants_has_rows_of_both(database: psycopg.Connection[Any]) -> None:
    """Else the other tests would prove nothing: whoever adds a table adds rows to it here."""
    found = relations(database)
    assert {"inbox", "builds", "feature_log_test_history_v2", "builds_daily_stats"} <= {one.name for one in found}
    empty = []
    if database.execute("SELECT has_timescale()").fetchone() == (True,):
        # TimescaleDB keeps to itself what is to be settled.
        found = [one for one in found if one.name != "statistics_dirty"]
    for relation in found:
        if relation.has_tenant and not relation.is_part:
            for tenant in (MINE, OTHER):
                with database.transaction():
                    database.execute("SELECT set_config('conductor.tenant_id', %s, true)", (tenant,))
                    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE tenant_id = {})")
                    if database.execute(statement.format(relation.identifier, tenant)).fetchone() == (False,):
                        empty.append((str(relation), tenant))
    assert not empty


@pytest.mark.parametrize("role", ROLES)
def test_nothing_of_another_tenant_is_seen_or_changed(database: psycopg.Connection[Any], role: str) -> None:
    intruder = Intruder(database, role)
    found = intruder.crossings()
    assert not found, "\n".join(found)
    print(f"\n    0 of {intruder.attempts} attempts as {role} got through")
    assert intruder.attempts > 500


def test_the_tenants_own_rows_are_seen(database: psycopg.Connection[Any]) -> None:
    """A role that sees nothing at all would pass the other tests."""
    for role in ROLES:
        with database.transaction():
            bind(database, role, MINE)
            for table in (
                "inbox",
                "builds",
                "completed_builds",
                "builds_daily_stats",
                *(v.log_table for v in VIEWS.values()),
            ):
                statement = sql.SQL("SELECT DISTINCT tenant_id FROM {}").format(sql.Identifier(table))
                assert database.execute(statement).fetchall() == [(MINE,)], (role, table)


def test_functions_that_run_as_their_owner_find_nothing_in_a_callers_temporary_schema(
    database: psycopg.Connection[Any],
) -> None:
    """A session's temporary tables come before all others, unless the function's path says that they come last. So a
    caller could put a table of its own in the place of one that the function means, with triggers, or types with casts,
    that then run as the owner, whom no policy binds."""
    loose = []
    for function in functions(database):
        paths = [told.partition("=")[2] for told in function.settings if told.startswith("search_path=")]
        if not paths or paths[0].split(",")[-1].strip() != "pg_temp":
            loose.append((function.signature, paths))
    assert not loose


_BECOME = "RAISE NOTICE 'runs as %', current_user;"


def test_a_temporary_table_in_place_of_the_lakes_gives_no_rights(database: psycopg.Connection[Any]) -> None:
    """The same, tried out: by the trigger that marks changes for the lake."""
    heard = _heard(database)
    with database.transaction(force_rollback=True):
        bind(database, INGEST_ROLE, MINE)
        database.execute(
            "CREATE TEMP TABLE lake_changes (table_name text, tenant_id text, day date, xid xid8,"
            " PRIMARY KEY (table_name, tenant_id, day))"
        )
        database.execute(
            f"CREATE FUNCTION pg_temp.mine() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {_BECOME} RETURN NULL; END$$"
            "".encode()
        )
        database.execute(
            "CREATE TRIGGER mine BEFORE INSERT ON pg_temp.lake_changes FOR EACH ROW EXECUTE FUNCTION pg_temp.mine()"
        )
        database.execute("GRANT ALL ON pg_temp.lake_changes TO PUBLIC")
        database.execute("INSERT INTO inbox VALUES (%s, 's', 'i', 't', now(), '', now(), '')", (MINE,))
    assert heard == []


def test_a_temporary_table_in_place_of_the_partitions_gives_no_rights(database: psycopg.Connection[Any]) -> None:
    """The same, by the function that makes partitions."""
    heard = _heard(database)
    with database.transaction(force_rollback=True):
        bind(database, INGEST_ROLE, MINE)
        database.execute("CREATE TYPE pg_temp.mine AS (told text)")
        database.execute(
            "CREATE FUNCTION pg_temp.mine(pg_temp.mine) RETURNS text LANGUAGE plpgsql"
            f" AS $$BEGIN {_BECOME} RETURN 'month'; END$$".encode()
        )
        database.execute("CREATE CAST (pg_temp.mine AS text) WITH FUNCTION pg_temp.mine(pg_temp.mine) AS IMPLICIT")
        database.execute("CREATE TEMP TABLE time_tables (table_name text, time_column text, partition pg_temp.mine)")
        database.execute("INSERT INTO pg_temp.time_tables VALUES ('test_results', 'completed_time', ROW('x'))")
        database.execute("SELECT public.ensure_partitions('test_results', '2026-03-01', '2026-03-01')")
    assert heard == []


def _heard(connection: psycopg.Connection[Any]) -> list[str]:
    """What code of the caller's says while it runs as somebody else."""
    heard: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        told = notice.message_primary or ""
        if told.startswith("runs as ") and told.split()[-1] not in ROLES:
            heard.append(told)

    connection.add_notice_handler(hear)
    return heard


_PLANTED = {
    "a table without its policy": ("ALTER TABLE builds DISABLE ROW LEVEL SECURITY", "public.builds"),
    "a policy that lets all through": (
        "CREATE POLICY more ON incidents USING (true) WITH CHECK (true)",
        "public.incidents",
    ),
    "a table of all tenants' facts": (
        "GRANT SELECT ON completed_builds TO conductor_reader",
        "public.completed_builds",
    ),
    "a column alone": ("GRANT SELECT (tenant_id) ON statistics_dirty TO conductor_reader", "public.statistics_dirty"),
    "a partition, or chunk, of such a table": (
        "DO $$BEGIN EXECUTE format('GRANT SELECT ON %s TO conductor_reader', (SELECT inhrelid::regclass"
        " FROM pg_inherits WHERE inhparent = 'test_results'::regclass ORDER BY 1 LIMIT 1)); END$$",
        f"rows of {OTHER}",
    ),
    "deletion": ("GRANT DELETE ON public.quality_scores TO conductor_reader", "public.quality_scores"),
    "truncation": ("GRANT TRUNCATE ON inbox TO conductor_reader", "public.inbox"),
    "a view as its owner sees it": (
        "CREATE VIEW conductor_tenant.news AS SELECT * FROM test_runs; GRANT SELECT ON conductor_tenant.news TO PUBLIC",
        "conductor_tenant.news",
    ),
    "a view that a condition looks behind": (
        "CREATE VIEW conductor_tenant.news AS SELECT * FROM test_runs"
        " WHERE tenant_id = current_setting('conductor.tenant_id', true);"
        " GRANT SELECT ON conductor_tenant.news TO conductor_reader",
        "overhears",
    ),
    "a copy under another name": (
        "CREATE MATERIALIZED VIEW copied AS SELECT tenant_id AS whose, build_id FROM builds;"
        " GRANT SELECT ON copied TO conductor_reader",
        "public.copied",
    ),
    "a new table": (
        "CREATE TABLE news AS SELECT tenant_id, display_name FROM tenants;"
        " GRANT SELECT, INSERT ON news TO conductor_reader",
        "public.news",
    ),
    "a function that tells": (
        "CREATE FUNCTION told() RETURNS SETOF builds LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM public.builds'",
        "told()",
    ),
    "a function that writes": (
        "CREATE FUNCTION forget(tenant text) RETURNS void LANGUAGE sql SECURITY DEFINER"
        " AS 'DELETE FROM public.usage_reports WHERE tenant_id = tenant'",
        "forget(text)",
    ),
    "settings that anybody writes": (
        "GRANT UPDATE ON materialization_cursors TO conductor_reader",
        "public.materialization_cursors",
    ),
}


@pytest.mark.parametrize("plant", _PLANTED)
def test_a_planted_hole_is_found(database: psycopg.Connection[Any], plant: str) -> None:
    """The control: each kind of hole is told, by the name of what has it."""
    statements, named = _PLANTED[plant]
    database.execute(statements.encode())
    found = Intruder(database, READER_ROLE).crossings()
    assert any(named in one for one in found), found
