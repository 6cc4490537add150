"""The schema: plain SQL migrations, applied by yoyo, and a log table for each feature view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg

from conductor_features.views import VIEWS, View

_MIGRATIONS = Path(str(resources.files("conductor_warehouse") / "migrations"))
_LOCK = 0x436F6E647563746F  # "Conducto": any number that every migrating process knows


class SchemaMismatch(RuntimeError):
    """The database does not fit this program; the message says what to do."""


@dataclass(frozen=True)
class SchemaStatus:
    """What a database has and what it lacks."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    views_without_log: tuple[str, ...]

    @property
    def current(self) -> bool:
        """Whether there is nothing to migrate."""
        return not self.pending and not self.views_without_log


def migrate(database_url: str, views: Mapping[str, View] = VIEWS) -> SchemaStatus:
    """Bring the schema up to date; returns the status before. Safe to run twice, and from many processes.

    Raises:
        SchemaMismatch: a view's definition differs from its log's, so it needs a new version.
        psycopg.Error: the database does not answer, or refuses.
    """
    with _exclusively(database_url) as connection:
        before = _status(database_url, connection, views)
        _create_timescale(connection)
        if before.pending:
            with _yoyo(database_url) as (backend, migrations):
                backend.apply_migrations(backend.to_apply(migrations))
        _create_feature_logs(connection, views)
        return before


def rollback(database_url: str) -> None:
    """Take the whole schema down again, data included."""
    with _exclusively(database_url), _yoyo(database_url) as (backend, migrations):
        backend.rollback_migrations(backend.to_rollback(migrations))


def status(database_url: str, views: Mapping[str, View] = VIEWS) -> SchemaStatus:
    """Which migrations are applied and which are pending; changes nothing that readers see."""
    with _exclusively(database_url) as connection:
        return _status(database_url, connection, views)


def _status(database_url: str, connection: psycopg.Connection[Any], views: Mapping[str, View]) -> SchemaStatus:
    with _yoyo(database_url) as (backend, migrations):
        applied = set(backend.get_applied_migration_hashes())
        known = [(migration.id, migration.hash in applied) for migration in migrations]
    logs = _feature_logs(connection)
    return SchemaStatus(
        applied=tuple(name for name, done in known if done),
        pending=tuple(name for name, done in known if not done),
        views_without_log=tuple(key for key in views if key not in logs),
    )


def _create_timescale(connection: psycopg.Connection[Any]) -> None:
    """Create the extension TimescaleDB where the server has loaded it; what was made without it stays as it is."""
    loaded = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
        " AND current_setting('shared_preload_libraries') LIKE '%timescaledb%' AND to_regclass('time_tables') IS NULL"
    ).fetchone()
    if loaded == (True,):
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")


def _create_feature_logs(connection: psycopg.Connection[Any], views: Mapping[str, View]) -> None:
    logs = _feature_logs(connection)
    for key, view in views.items():
        definition = (list(view.entity), list(view.field_names))
        if key not in logs:
            connection.execute("SELECT create_feature_log(%s, %s, %s)", (key, *definition))
        elif logs[key] != definition:
            raise SchemaMismatch(
                f"view {key} is not what its log was made for: give the changed definition a new version "
                f"(on a machine without data to keep: SELECT drop_feature_log('{key}'))"
            )


def _feature_logs(connection: psycopg.Connection[Any]) -> dict[str, tuple[list[str], list[str]]]:
    if connection.execute("SELECT to_regclass('feature_views')").fetchone() == (None,):
        return {}
    rows = connection.execute("SELECT view_key, entity, fields FROM feature_views").fetchall()
    return {key: (entity, fields) for key, entity, fields in rows}


@contextmanager
def _exclusively(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that holds the right to migrate; it ends with the connection, so a killed process leaves no lock."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        yield connection


@contextmanager
def _yoyo(database_url: str) -> Iterator[tuple[Any, Any]]:
    from yoyo import get_backend, read_migrations  # noqa: PLC0415 - half a second that only migrating needs

    scheme, separator, rest = database_url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise SchemaMismatch(f"a database address begins with postgresql://, not {scheme!r}")
    backend = get_backend(f"postgresql+psycopg://{rest}")
    try:
        # yoyo's own lock is a row, which a killed process leaves behind; ours is held, so nobody else is at it.
        backend.break_lock()
        yield backend, read_migrations(str(_MIGRATIONS))
    finally:
        backend.connection.close()
