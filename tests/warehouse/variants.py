"""The two kinds of database that the warehouse runs on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from conductor_workbench.embedded import EmbeddedPostgres
from databases import migrated

_BINARIES = "CONDUCTOR_TEST_TIMESCALE_BINARIES"


@pytest.fixture(params=["native", "timescale"], scope="module")
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, embedded_postgres: EmbeddedPostgres
) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL without and one with TimescaleDB; the latter is skipped where the extension is not found."""
    if (request.param == "timescale") == _timescale_is_there():
        yield embedded_postgres  # the session's is of this kind
        return
    path = os.environ["PATH"]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "timescale":
            patch.setenv("PATH", os.pathsep.join([os.environ.get(_BINARIES, ""), path]))
            if not _timescale_is_there():
                pytest.skip(f"no PostgreSQL with TimescaleDB on PATH or in {_BINARIES}")
        else:
            folders = [one for one in path.split(os.pathsep) if not (Path(one) / "postgres").exists()]
            patch.setenv("PATH", os.pathsep.join(folders))
        server = EmbeddedPostgres(tmp_path_factory.mktemp(request.param), keep=False, durable=False).start()
    # PATH is as it was: other servers that tests start are of the usual kind.
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def variant_warehouse(variant: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A connection to a migrated and empty database of either kind."""
    with migrated(variant) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


def is_timescale(connection: psycopg.Connection) -> bool:
    """Whether the database keeps hypertables."""
    return connection.execute("SELECT has_timescale()").fetchone() == (True,)


def _timescale_is_there() -> bool:
    postgres = shutil.which("postgres")
    if postgres is None:
        return False
    prefix = Path(postgres).resolve().parents[1]
    return any(prefix.glob("share/**/extension/timescaledb.control"))
