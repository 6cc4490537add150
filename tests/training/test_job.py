"""From events in a real warehouse to a published model."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psycopg
import pytest

from conductor.model.v1.model_manifest_pb2 import Blob, ModelManifest
from conductor_features.views import VIEWS
from conductor_model_store import ModelStore
from conductor_training import jobs
from conductor_training.build_duration.bundle import PREDICTOR
from conductor_training.build_duration.columns import VIEWS as MODEL_VIEWS
from conductor_training.frame import STRICTLY_BEFORE, build_frame, epoch_seconds, feature_column
from conductor_training.jobs import Trained, train_build_duration, warehouse_frames
from conductor_warehouse.ingestion import ingest
from conductor_workbench.simulate.builds import Simulation, simulate

SIMULATION = Simulation(tenants=2, builds=220, days=30, seed=3)


@pytest.fixture
def warehouse(warehouse_url: str) -> str:
    """A warehouse that holds the simulation: one tenant with history, one cold start."""
    events = sorted(
        (event for queued, completed, _ in simulate(SIMULATION) for event in (queued, completed)),
        key=lambda event: event.time,
    )
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        result = ingest(connection, [event.to_json().encode() for event in events])
    assert (result.stored, result.dead_letter_count) == (len(events), 0)
    return warehouse_url


def train(database_url: str, store: Path, until: datetime, tenant: str | None = None) -> list[Trained]:
    return list(
        train_build_duration(
            read_frame=warehouse_frames(database_url, until), store=ModelStore.open(store), tenant_id=tenant
        )
    )


def test_a_frame_holds_what_was_known_and_a_model_only_what_was_known_before_its_until(
    warehouse: str, tmp_path: Path
) -> None:
    end = SIMULATION.start + timedelta(days=29)
    frame = build_frame(warehouse, MODEL_VIEWS, end)
    _assert_rows_are_of_their_moment(warehouse, frame.rows)

    first = train(warehouse, tmp_path / "models", end)
    by_tenant = {trained.tenant_id: trained for trained in first}
    assert set(by_tenant) == {"", "tenant-000", "tenant-001-cold"}
    assert by_tenant[""].version
    assert by_tenant["tenant-000"].version
    assert "a model of its own takes 100" in by_tenant["tenant-001-cold"].skipped

    # Whatever happens from the moment on must not change what was trained before it.
    with psycopg.connect(warehouse, autocommit=True) as connection:
        connection.execute("UPDATE builds SET duration = 1e6 WHERE completed_time >= %s", (end,))
        for view in VIEWS.values():
            numbers = psycopg.sql.SQL(", ").join(
                psycopg.sql.SQL("{} = 1e6").format(psycopg.sql.Identifier(name)) for name in view.field_names
            )
            statement = psycopg.sql.SQL("UPDATE {} SET {} WHERE event_timestamp >= %s")
            connection.execute(statement.format(psycopg.sql.Identifier(view.log_table), numbers), (end,))
    again = train(warehouse, tmp_path / "models", end)
    assert [trained.version for trained in again] == [trained.version for trained in first]
    assert all(pointer.generation == 1 for pointer in ModelStore.open(tmp_path / "models").pointers().values())


def _assert_rows_are_of_their_moment(database_url: str, rows) -> None:  # type: ignore[no-untyped-def]
    """The last duration and the age of the last completion, worked out anew from the builds."""
    for tenant in rows.tenant_id.unique():
        mine = rows[rows.tenant_id == tenant]
        with psycopg.connect(database_url) as connection:
            ended = connection.execute(
                "SELECT completed_time, passed_duration, build_id FROM builds WHERE tenant_id = %s "
                "ORDER BY completed_time, build_id",
                (tenant,),
            ).fetchall()
        for row in mine.itertuples():
            before = [build for build in ended if build[0] <= row.queued_time - STRICTLY_BEFORE]
            passed = [build[1] for build in before if build[1] is not None]
            told = getattr(row, feature_column(MODEL_VIEWS[0], "last_duration"))
            assert math.isnan(told) if not passed else told == passed[-1]
            if before:
                last = getattr(row, feature_column(MODEL_VIEWS[0], "last_completed_time"))
                assert last == before[-1][0].timestamp()
    assert np.all(np.diff(epoch_seconds(rows.queued_time)) >= 0)


def test_a_cold_tenant_gets_the_global_model_and_an_empty_warehouse_none(warehouse_url: str, tmp_path: Path) -> None:
    results = train(warehouse_url, tmp_path / "models", datetime.now(UTC), tenant="nobody")
    assert [(trained.tenant_id, trained.skipped) for trained in results] == [
        ("", "no usable builds"),
        ("nobody", "no usable builds"),
    ]
    assert ModelStore.open(tmp_path / "models").pointers() == {}


def test_what_is_staged_is_stored_and_moves_no_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = b"graph"
    digest = hashlib.sha256(graph).hexdigest()
    manifest = ModelManifest(predictor=PREDICTOR, graph=Blob(digest=digest, size_bytes=len(graph)))
    monkeypatch.setattr(jobs, "_train", lambda *_: SimpleNamespace(manifest=manifest, graph=graph))
    monkeypatch.setattr(jobs, "require_fit", lambda *_: [])
    store = ModelStore.open(tmp_path)

    def train_once(*, stage: bool) -> str:
        frame = SimpleNamespace(tenants=[])
        [trained] = train_build_duration(read_frame=lambda _: frame, store=store, stage=stage)  # type: ignore[arg-type,return-value]
        return trained.version

    version = train_once(stage=True)
    assert [stored.version for stored in store.versions(PREDICTOR)] == [version]
    assert store.channels(PREDICTOR) == []
    assert train_once(stage=False) == version
    assert store.history(PREDICTOR)[0].actor == "conductor train"
