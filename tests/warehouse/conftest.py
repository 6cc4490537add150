"""A migrated warehouse for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from conductor_warehouse import schema
from conductor_warehouse.lake import Lake
from conductor_workbench.embedded import EmbeddedPostgres

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def migrated_database(embedded_postgres: EmbeddedPostgres) -> str:
    """Name of a database that is only copied from: migrating anew for each test takes too long."""
    schema.migrate(embedded_postgres.create_database("migrated"))
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        # TimescaleDB's scheduler connects to every database, and one that is in use can't be copied.
        connection.execute('ALTER DATABASE "migrated" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'migrated'")
    return "migrated"


@pytest.fixture
def warehouse_url(embedded_postgres: EmbeddedPostgres, migrated_database: str) -> Iterator[str]:
    """A migrated and empty database."""
    name = f"warehouse_{next(_NUMBERS)}"
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{migrated_database}"')
    yield embedded_postgres.database_url(name)
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def warehouse(warehouse_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a migrated and empty database."""
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty one, in a folder."""
    return Lake.open(tmp_path / "lake")
