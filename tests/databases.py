"""Migrated databases. To migrate anew for each test takes too long: one is migrated, and the others are its copies."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from conductor_warehouse import schema
from conductor_workbench.embedded import EmbeddedPostgres

_MIGRATED = "migrated"
_MEMORY = Path("/dev/shm")  # noqa: S108 - not shared: PostgreSQL lets only its own user into its folder
_PREFIX = "conductor-tests"
_ROOM_BYTES = 4 * 2**30
_NUMBERS = itertools.count()


def directory_in_memory(name: str) -> Path | None:
    """Where files cost little: a database is a thousand of them, and most tests make one. None where there is no room.

    A run that was killed leaves its own behind; the next one removes it.
    """
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES:
        return None
    for left in _MEMORY.glob(f"{_PREFIX}-*-*"):
        if not psutil.pid_exists(int(left.name.rpartition("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    return _MEMORY / f"{_PREFIX}-{name}-{os.getpid()}"


@contextmanager
def migrated(server: EmbeddedPostgres) -> Iterator[str]:
    """A migrated and empty database, dropped in the end."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (_MIGRATED,)).fetchone()
    if known is None:
        schema.migrate(server.create_database(_MIGRATED))
        seal(server, _MIGRATED)
    with copy_of(server, _MIGRATED) as url:
        yield url


def seal(server: EmbeddedPostgres, name: str) -> None:
    """From now on the database is only copied from."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        # TimescaleDB's scheduler connects to every database, and one that is in use can't be copied.
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


@contextmanager
def copy_of(server: EmbeddedPostgres, name: str) -> Iterator[str]:
    """A copy of a sealed database, dropped in the end."""
    copy = f"{name}_{next(_NUMBERS)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')
    url = server.database_url(copy)
    with psycopg.connect(url, autocommit=True) as connection:  # for a Redis it must not pass for another copy
        connection.execute("UPDATE materialization_cursors SET epoch = gen_random_uuid()")
    yield url
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{copy}" WITH (FORCE)')
