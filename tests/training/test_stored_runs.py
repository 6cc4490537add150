"""Test runs read from the warehouse, and from its lake, are those of the events, and give equal frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from conductor_model_store import ModelStore
from conductor_training.cli import commands
from conductor_training.test_failure import stored_runs
from conductor_training.test_failure.frame import Run, frame_of_runs
from conductor_training.test_failure.jobs import read_runs
from conductor_training.test_failure.stored_runs import _select, lake_runs, warehouse_runs
from conductor_warehouse import schema
from conductor_warehouse.events import Event, parse
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeVersion
from conductor_warehouse.lake.export import export
from conductor_workbench.embedded import EmbeddedPostgres
from training.test_runs import as_events, make_runs
from warehouse.catalogue import random_events
from warehouse.histories import START

Runs = Mapping[str, Sequence[Run]]


def told(number: int, **data: object) -> bytes:
    """A run of a tenant with a quote in its name, beside those of the catalogue."""
    time = (START + timedelta(days=number)).isoformat()
    data = {"runId": f"own-{number}", "repository": "sho'p", "completedTime": time, **data}
    event = {"specversion": "1.0", "id": f"own-{number}", "source": "ci", "type": "test.completed", "time": time}
    return json.dumps({**event, "tenantid": "o-neill", "data": data}).encode()


RESULT = {"testId": "Ünïcode::t'1", "outcome": "TEST_OUTCOME_FAILED", "duration": "0.123456789s"}
OWN = [
    told(1, startedTime=(START + timedelta(hours=20)).isoformat(), results=[RESULT, {**RESULT, "outcome": 1}]),
    told(2, changedPaths=["a", "b", "a"], results=[RESULT, {"testId": "t2", "outcome": "TEST_OUTCOME_SKIPPED"}]),
    told(3, changedPaths=["b"]),
    told(4, changedPaths=["b"], results=[{"testId": "t2", "outcome": "TEST_OUTCOME_ERROR"}] * 3),
]


MADE = as_events([replace(run, tenant_id="made") for run in make_runs(runs=40, tests=6)])
"""A tenant with enough history for a model."""


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    taken = [event for event in (*random_events(23, 240), *OWN, *MADE) if isinstance(parse(event), Event)]
    path.write_bytes(b"\n".join(taken))
    return path


@pytest.fixture(scope="module")
def database(embedded_postgres: EmbeddedPostgres, events: Path) -> str:
    """They arrive in batches; some runs are told of again, and move."""
    url = embedded_postgres.create_database("stored_runs")
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        told = events.read_bytes().split(b"\n")
        for begin in range(0, len(told), 50):
            ingest(connection, told[begin : begin + 50])
    return url


@pytest.fixture(scope="module")
def lake_folder(database: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    export(Lake.open(folder), database)
    return folder


@pytest.fixture(scope="module")
def lake(lake_folder: Path) -> tuple[Lake, LakeVersion]:
    opened = Lake.open(lake_folder)
    return opened, opened.version()[1]


def digests(runs: Runs) -> dict[str, str]:
    return {tenant: frame_of_runs(own).digest() for tenant, own in runs.items()}


def test_frames_are_equal_whatever_they_are_read_from(
    events: Path, database: str, lake: tuple[Lake, LakeVersion]
) -> None:
    expected = read_runs([events])
    assert len(expected) > 2 and sum(map(len, expected.values())) > 90
    for found in (warehouse_runs(database), lake_runs(*lake)):
        assert list(found) == list(expected)
        assert {tenant: [run.run_id for run in own] for tenant, own in found.items()} == {
            tenant: [run.run_id for run in own] for tenant, own in expected.items()
        }
        assert digests(found) == digests(expected)


def test_of_one_tenant_and_only_what_had_ended(events: Path, database: str, lake: tuple[Lake, LakeVersion]) -> None:
    until = START + timedelta(days=3)
    expected = [run for run in read_runs([events])["o-neill"] if run.completed < until.timestamp()]
    assert len(expected) == 2
    for found in (warehouse_runs(database, "o-neill", until), lake_runs(*lake, "o-neill", until)):
        assert digests(found) == digests({"o-neill": expected})
    for nothing in (
        warehouse_runs(database, "nobody"),
        lake_runs(*lake, "nobody"),
        warehouse_runs(database, "o-neill", START),
        lake_runs(*lake, "o-neill", START),
    ):
        assert nothing == {}


def test_a_warehouse_that_does_not_answer_is_told_as_such() -> None:
    with pytest.raises(psycopg.Error):
        warehouse_runs("postgresql://nobody@127.0.0.1:1/none")


def test_by_command_the_same_model_is_made_whatever_it_is_read_from(
    events: Path, database: str, lake: tuple[Lake, LakeVersion], lake_folder: Path, tmp_path: Path
) -> None:
    def stage(*arguments: str) -> dict[str, str]:
        place = ["--store", str(tmp_path / "models"), "--stage", "--until", "2026-01-01", "-o", "json"]
        told = CliRunner().invoke(commands, ["test-failure", *arguments, *place])
        assert told.exit_code == 0, told.output
        return {row["tenant"]: row["version"] for row in json.loads(told.stdout) if row["model"]}

    files, stored = stage(str(events)), stage("--database-url", database)
    assert set(files) == {"(global)", "made"}
    assert stored == files
    read = stage("--lake", str(lake_folder), "--lake-version", lake[1].digest[:8], "--tenant", "made")
    store = ModelStore.open(tmp_path / "models")
    assert not store.pointers(), "staged models are not served"
    ours, theirs = (store.load("test-failure", "made", versions["made"]).manifest for versions in (files, read))
    assert theirs.training_data.lake_version == lake[1].digest
    theirs.training_data.lake_version = ""
    assert theirs == ours


def test_a_snapshot_is_of_one_moment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that comes while runs are read is not among them, whichever table is read next."""
    expected = digests(warehouse_runs(database))
    late = iter([told(20 + number, results=[RESULT]) for number in range(20)])

    def meanwhile(*arguments: object) -> str:
        with psycopg.connect(database, autocommit=True) as connection:
            ingest(connection, [next(late)])
        return _select(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stored_runs, "_select", meanwhile)
    assert digests(warehouse_runs(database)) == expected
    monkeypatch.undo()
    assert digests(warehouse_runs(database)) != expected
