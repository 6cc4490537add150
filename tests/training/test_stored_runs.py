"""Test runs read from the warehouse, and from its lake, are those of the events, and give equal frames."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from conductor_training.test_failure.frame import Run, frame_of_runs
from conductor_training.test_failure.jobs import read_runs
from conductor_training.test_failure.stored_runs import lake_runs, warehouse_runs
from conductor_warehouse import schema
from conductor_warehouse.events import Event, parse
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeVersion
from conductor_warehouse.lake.export import export
from conductor_workbench.embedded import EmbeddedPostgres
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


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    taken = [event for event in (*random_events(23, 240), *OWN) if isinstance(parse(event), Event)]
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
def lake(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, LakeVersion]]:
    opened = Lake.open(tmp_path_factory.mktemp("lake"))
    export(opened, database)
    yield opened, opened.version()[1]


def digests(runs: Runs) -> dict[str, str]:
    return {tenant: frame_of_runs(own).digest() for tenant, own in runs.items()}


def test_frames_are_equal_whatever_they_are_read_from(
    events: Path, database: str, lake: tuple[Lake, LakeVersion]
) -> None:
    expected = read_runs([events])
    assert len(expected) > 2 and sum(map(len, expected.values())) > 40
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
