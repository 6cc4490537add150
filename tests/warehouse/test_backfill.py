"""A view's new version gets the rows of the past while events come in: as if it had always been there."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

import programs
from conductor_features.cli import commands
from conductor_features.views import VIEWS, View
from conductor_warehouse.features import registry
from conductor_warehouse.features.backfill import backfill, status
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.subjects import builds, quality, quarantines, tests, usage
from conductor_warehouse.subjects.upsert import views_of
from warehouse.catalogue import random_events
from warehouse.histories import latest_rows

EVENTS = random_events(31, 280)
random.Random(31).shuffle(EVENTS)


def install(patch: pytest.MonkeyPatch, key: str) -> View:
    """The next version of a view, with the same definition: then the rows must be the same."""
    first = VIEWS[key]
    second = replace(first, version=first.version + 1)
    definition = registry.DEFINITIONS[key]
    kind = type(f"{type(definition).__name__}Next", (type(definition),), {"view": second})
    patch.setitem(VIEWS, second.key, second)  # type: ignore[arg-type]
    patch.setitem(registry.DEFINITIONS, second.key, kind())  # type: ignore[arg-type]
    modules: dict[ModuleType, dict[str, tuple[str, ...]]] = {
        builds: {"_QUEUED_VIEWS": ("build.queued",), "_COMPLETED_VIEWS": ("build.completed",)},
        tests: {"_VIEWS": tests.EVENT_TYPES},
        quarantines: {"_VIEWS": quarantines.EVENT_TYPES},
        quality: {"_VIEWS": quality.EVENT_TYPES},
        usage: {"_VIEWS": usage.EVENT_TYPES},
    }
    for module, names in modules.items():
        for name, kinds in names.items():
            patch.setattr(module, name, views_of(*kinds))
    return second


def create_log(connection: psycopg.Connection[Any], view: View) -> None:
    """What the migration that comes with a new version does."""
    connection.execute("SELECT create_feature_log(%s, %s, %s)", (view.key, list(view.entity), list(view.field_names)))


@pytest.mark.parametrize("key", list(VIEWS))
def test_beside_ingestion_it_ends_as_if_it_had_always_been_there(
    warehouse: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    ingest(warehouse, EVENTS[:140])
    view = install(monkeypatch, key)
    create_log(warehouse, view)
    later = iter([EVENTS[begin : begin + 25] for begin in range(140, len(EVENTS), 20)])
    with psycopg.connect(warehouse_url, autocommit=True) as other:
        backfill(warehouse, view.key, batch_size=20, progress=lambda _: ingest_next(other, later))
        for batch in later:
            ingest(other, batch)
    expected = latest_rows(warehouse, VIEWS[key])
    assert expected
    assert repr(sorted(latest_rows(warehouse, view).items())) == repr(sorted(expected.items()))
    # Nothing is left to do, nor to correct.
    assert backfill(warehouse, view.key) == 0
    assert backfill(warehouse, view.key, restart=True) == 0
    assert all(one["finished"] for one in status(warehouse, view.key))


def ingest_next(connection: psycopg.Connection[Any], batches: Iterator[list[bytes]]) -> None:
    ingest(connection, next(batches, []))


_KILLED = """
import os, signal, sys
import psycopg, pytest
from warehouse.test_backfill import install
from conductor_warehouse.features import backfill
url, point = sys.argv[1:]
install(pytest.MonkeyPatch(), "test_history_v2")
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
calls = 0
store = backfill._store
def killed_store(*arguments):
    global calls
    calls += 1
    store(*arguments)
    if calls == 3:
        die()
if point == "before commit":
    backfill._store = killed_store
with psycopg.connect(url, autocommit=True) as connection:
    backfill.backfill(connection, "test_history_v3", batch_size=8,
        progress=die if point == "after commit" else lambda _: None)
"""


@pytest.mark.parametrize("point", ["before commit", "after commit"])
def test_killed_it_goes_on(
    warehouse: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    ingest(warehouse, EVENTS)
    view = install(monkeypatch, "test_history_v2")
    create_log(warehouse, view)
    assert programs.run(_KILLED, warehouse_url, point) == -signal.SIGKILL
    done = sum(int(str(one["events"] or 0)) for one in status(warehouse, view.key))
    assert done == (16 if point == "before commit" else 8)
    backfill(warehouse, view.key, batch_size=40)
    expected = latest_rows(warehouse, VIEWS["test_history_v2"])
    assert repr(sorted(latest_rows(warehouse, view).items())) == repr(sorted(expected.items()))
    count = warehouse.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(view.log_table))).fetchall()
    assert count == [(len(expected),)]  # each row once


def test_command(warehouse: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(warehouse, EVENTS)
    view = install(monkeypatch, "quality_metric_v1")
    create_log(warehouse, view)

    def run(*arguments: str) -> Any:
        told = CliRunner().invoke(commands, ["backfill", *arguments, "--database-url", warehouse_url, "-o", "json"])
        assert told.exit_code == 0, told.output
        return json.loads(told.stdout)

    assert {one["finished"] for one in run(view.key, "--status")} == {None}
    assert run(view.key, "--tenant", "acme")["tenants"] == 1
    assert run(view.key)["tenants"] == 2
    assert run(view.key)["rows"] == 0
    told = CliRunner().invoke(commands, ["backfill", "nonsense_v1", "--database-url", warehouse_url])
    assert told.exit_code == 2
    assert "there are pipeline_builds_v1" in told.output
