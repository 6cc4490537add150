"""A warehouse of release 0.1.0, with its data, becomes one of today."""

from __future__ import annotations

import psycopg
from psycopg import sql

from conductor_features.views import BUILD_VIEWS
from conductor_warehouse import schema
from conductor_warehouse.features.backfill import backfill
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded import EmbeddedPostgres
from warehouse.catalogue import random_events, state
from warehouse.histories import events_of, random_history

OF_RELEASE_0_1_0 = ("0001_roles", "0002_inbox", "0003_builds", "0004_feature_logs")
HISTORY = events_of(random_history(41, 120))
LATER = random_events(42, 150)


def old_warehouse(server: EmbeddedPostgres, filled: psycopg.Connection) -> str:
    """A database as the release had made it, with the rows that it would have written: those tables' are the same."""
    url = server.create_database("release_0_1_0")
    with schema._yoyo(url) as (backend, migrations):
        backend.apply_migrations(migrations.filter(lambda migration: migration.id in OF_RELEASE_0_1_0))
    with psycopg.connect(url, autocommit=True) as connection:
        for view in BUILD_VIEWS:
            connection.execute(
                "SELECT create_feature_log(%s, %s, %s)", (view.key, list(view.entity), list(view.field_names))
            )
        for table in ("inbox", "builds", *(view.log_table for view in BUILD_VIEWS)):
            copy_rows(filled, connection, table)
    return url


def copy_rows(source: psycopg.Connection, target: psycopg.Connection, table: str) -> None:
    columns = [
        name
        for (name,) in target.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' AND attname NOT IN ('log_id', 'xid') ORDER BY attnum",
            (table,),
        )
    ]
    names, name = sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
    order = sql.SQL("ORDER BY log_id" if table.startswith("feature_log") else "")
    with (
        source.cursor().copy(sql.SQL("COPY (SELECT {} FROM {} {}) TO STDOUT").format(names, name, order)) as rows,
        target.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(name, names)) as copy,
    ):
        for row in rows:
            copy.write(row)


def test_its_data_are_all_there_and_events_go_on(
    embedded_postgres: EmbeddedPostgres, warehouse: psycopg.Connection
) -> None:
    ingest(warehouse, HISTORY)
    url = old_warehouse(embedded_postgres, warehouse)
    before = schema.migrate(url)
    assert before.applied == OF_RELEASE_0_1_0
    with psycopg.connect(url, autocommit=True) as upgraded:
        assert state(upgraded) == state(warehouse)
        assert ingest(upgraded, HISTORY).duplicates == len(HISTORY)
        for connection in (upgraded, warehouse):
            ingest(connection, LATER)
        assert state(upgraded) == state(warehouse)
        # The log goes on with its numbers: none stands twice.
        for view in BUILD_VIEWS:
            table = sql.Identifier(view.log_table)
            counted = upgraded.execute(
                sql.SQL("SELECT count(*) = count(DISTINCT log_id), count(*) > 100 FROM {}").format(table)
            ).fetchone()
            assert counted == (True, True)
            assert backfill(upgraded, view.key) == 0
