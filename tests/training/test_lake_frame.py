"""Training frames from the lake equal those from the warehouse."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from conductor_features.views import BUILD_VIEWS
from conductor_model_store import ModelStore
from conductor_training.build_duration.columns import VIEWS
from conductor_training.cli import commands
from conductor_training.frame import build_frame
from conductor_training.jobs import lake_frames, train_build_duration, warehouse_frames
from conductor_training.lake_frame import build_frame_from_lake
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeCorrupt
from conductor_warehouse.lake.export import export
from conductor_workbench.simulate.builds import Simulation, simulate

SIMULATION = Simulation(tenants=2, builds=220, days=30, seed=3)
UNTIL = SIMULATION.start + timedelta(days=29)


@pytest.fixture
def database(warehouse_url: str) -> str:
    """A warehouse whose feature rows became known at most eight hours after their moment, some after later ones."""
    events = sorted(
        (event for queued, completed, _ in simulate(SIMULATION) for event in (queued, completed)),
        key=lambda event: event.time,
    )
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        ingest(connection, [event.to_json().encode() for event in events])
        for view in BUILD_VIEWS:
            connection.execute(
                sql.SQL(
                    "UPDATE {} SET created = event_timestamp + (log_id * 7919 %% 480) * interval '1 minute'"
                ).format(sql.Identifier(view.log_table)),
                (),
            )
    return warehouse_url


@pytest.fixture
def lake(database: str, tmp_path: Path) -> Lake:
    opened = Lake.open(tmp_path / "lake")
    export(opened, database)
    return opened


@pytest.mark.parametrize("as_served", [False, True])
@pytest.mark.parametrize("tenant", [None, "tenant-000", "nobody"])
def test_the_frames_are_equal(database: str, lake: Lake, tenant: str | None, as_served: bool) -> None:
    version = lake.version()[1]
    expected = build_frame(database, VIEWS, UNTIL, tenant, as_served=as_served)
    found = build_frame_from_lake(lake, version, VIEWS, UNTIL, tenant, as_served=as_served)
    assert len(found.rows) == len(expected.rows)
    assert list(found.rows.columns) == list(expected.rows.columns) or expected.rows.empty
    assert found.rows.empty or found.digest() == expected.digest()
    assert (found.lake_version, found.as_served) == (version.digest, as_served)


def test_as_served_differs_from_as_corrected(database: str) -> None:
    corrected, served = (build_frame(database, VIEWS, UNTIL, as_served=known) for known in (False, True))
    assert len(corrected.rows) == len(served.rows) > 150
    assert corrected.digest() != served.digest()


def test_the_same_model_is_trained_and_names_its_version(database: str, lake: Lake, tmp_path: Path) -> None:
    digest, version = lake.version()

    def train(read_frame, folder: str):  # type: ignore[no-untyped-def]
        store = ModelStore.open(tmp_path / folder)
        [trained] = [one for one in train_build_duration(read_frame=read_frame, store=store) if not one.tenant_id]
        assert trained.bundle is not None
        return trained.bundle.manifest

    one = train(warehouse_frames(database, UNTIL), "one")
    other = train(lake_frames(lake, version, UNTIL), "other")
    assert one.graph.digest == other.graph.digest
    assert one.training_data.dataset_digest == other.training_data.dataset_digest
    assert (one.training_data.lake_version, other.training_data.lake_version) == ("", digest)


def test_by_command(lake: Lake, tmp_path: Path) -> None:
    place = ["--lake", str(tmp_path / "lake"), "--store", str(tmp_path / "models"), "-o", "json"]
    arguments = ["build-duration", "--until", UNTIL.strftime("%Y-%m-%d"), *place]
    told = CliRunner().invoke(commands, [*arguments, "--lake-version", lake.version()[0][:8]])
    assert told.exit_code == 0, told.output
    assert {row["tenant"] for row in json.loads(told.stdout)} == {"(global)", "tenant-000", "tenant-001-cold"}
    told = CliRunner().invoke(commands, [*arguments, "--lake-version", "0" * 10])
    assert told.exit_code == 1
    assert "no version" in told.output


def test_a_damaged_lake_is_not_trained_on(lake: Lake, tmp_path: Path) -> None:
    version = lake.version()[1]
    entry = version.entry(VIEWS[0].log_table, "tenant-000")
    assert entry is not None
    path = tmp_path / "lake" / lake.files(entry).files[3].key
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LakeCorrupt):
        build_frame_from_lake(lake, version, VIEWS, UNTIL)
