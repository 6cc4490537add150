"""Real services for the tests: one Redis and one PostgreSQL for the session, a clean one of each for the test."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from hypothesis import settings

import machine
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from databases import directory_in_memory, migrated

pytest_plugins = ["watchdog"]

# Tests start processes beside open channels, and the children use none of them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# The same examples in every run, however long a busy machine takes for one.
settings.register_profile("conductor", deadline=None, derandomize=True, database=None)
settings.load_profile("conductor")

# Nothing may rest on the time zone of a database's sessions.
os.environ.setdefault("PGTZ", "America/St_Johns")

_NUMBERS = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--duration", type=float, default=0.0, metavar="SECONDS", help="long form: each for so long")
    parser.addoption("--seed", type=int, default=1, help="of what such tests do at random")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: else one begins last, and everything waits for it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def watched_machine() -> None:
    """What the machine loses is noted from the first test on."""
    machine.watch()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of everything random in a test."""
    return int(request.config.getoption("--seed"))


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Iterator[int]:
    """Numbers from 0, as long as ``--duration`` says; without it only 0."""
    return _rounds(request.config.getoption("--duration"))


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether ``--duration`` asks for it."""
    return bool(request.config.getoption("--duration"))


def _rounds(seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    for number in itertools.count():
        yield number
        if time.monotonic() >= end:
            return


@pytest.fixture(scope="session")
def embedded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One Redis for the session. Tests that kill Redis start their own."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(embedded_redis: EmbeddedRedis) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(embedded_redis.url) as client:
        client.flushall()
    return embedded_redis.url


@pytest.fixture(scope="session")
def embedded_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for the session."""
    directory = directory_in_memory("postgres") or tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres(directory, keep=False, durable=False) as server:
        yield server


@pytest.fixture
def database_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database, dropped after the test."""
    name = f"test_{next(_NUMBERS)}"
    yield embedded_postgres.create_database(name)
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def warehouse_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """A migrated and empty database, dropped after the test."""
    with migrated(embedded_postgres) as url:
        yield url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis of the test's own, to kill and restart."""
    with EmbeddedRedis(tmp_path / "own-redis") as server:
        yield server
