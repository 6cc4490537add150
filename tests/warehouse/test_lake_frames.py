"""Training frames from the lake equal those from PostgreSQL, bit for bit."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from conductor_features.views import BUILD_VIEWS, PIPELINE_BUILDS, TENANT_LOAD
from conductor_training.frame import build_frame, feature_column
from conductor_training.lake_frame import build_frame_from_lake
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeCorrupt, LakeVersion
from conductor_warehouse.lake.export import export
from warehouse.histories import START, Build, completed_event, events_of, queued_event, random_history

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BUILDS = random_history(seed=21, count=240)
END = BUILDS[-1].queued + DAY


@pytest.fixture
def lake(warehouse: psycopg.Connection[Any], warehouse_url: str, tmp_path: Path) -> Lake:
    """A lake of a history with late events, whose rows tie in their times."""
    events = events_of(BUILDS)
    ingest(warehouse, [event for number, event in enumerate(events) if number % 5])
    ingest(warehouse, events)
    log = PIPELINE_BUILDS.log_table
    # A rebuilt feature: the same moments again, of one creation time, told apart by log_id alone.
    warehouse.execute(
        f"INSERT INTO {log} (tenant_id, repository, pipeline, event_timestamp, created, passed_count)"  # noqa: S608
        f" SELECT tenant_id, repository, pipeline, event_timestamp, created, n FROM {log}, generate_series(1, 3) AS n"
        " WHERE passed_count > 3".encode()
    )
    found = Lake.open(tmp_path / "lake")
    export(found, warehouse_url)
    return found


def read(lake: Lake, version: LakeVersion, until: datetime, tenant: str | None) -> pd.DataFrame:
    return build_frame_from_lake(lake, version, BUILD_VIEWS, until, tenant).rows


def assert_equal(rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same rows in the same order, numbers to the last bit."""
    assert len(rows) == len(expected)
    if expected.empty:
        return
    assert list(rows.columns) == list(expected.columns)
    for name in rows.columns:
        one, other = rows[name], expected[name]
        if one.dtype == np.float64:
            assert (one.to_numpy().view(np.int64) == other.to_numpy(dtype=np.float64).view(np.int64)).all(), name
        else:
            pd.testing.assert_series_equal(one, other, check_dtype=False)


def test_a_frame_equals_postgresqls(lake: Lake, warehouse_url: str) -> None:
    version = lake.version()[1]
    # A moment on which a build ended, in a zone whose date is the day before.
    moment = next(build.completed for build in BUILDS[60:] if build.completed is not None and build.completed.hour < 5)
    cases: list[tuple[datetime, str | None, int]] = [
        (END, None, 40),
        (END, "acme", 10),
        (END, "nobody", 0),
        (moment.astimezone(timezone(-5 * HOUR)), None, 10),
        (START, None, 0),
    ]
    for until, tenant, least in cases:
        rows = read(lake, version, until, tenant)
        assert_equal(rows, build_frame(warehouse_url, BUILD_VIEWS, until, tenant).rows)
        assert len(rows) >= least
        assert tenant is None or set(rows["tenant_id"] if least else []) <= {tenant}
    everything = read(lake, version, END, None)
    column = feature_column(PIPELINE_BUILDS, "passed_count")
    assert everything[column].notna().any() and everything[column].isna().any()


def test_a_version_gives_its_frame_after_the_warehouse_has_moved_on(
    lake: Lake, warehouse: psycopg.Connection[Any], warehouse_url: str
) -> None:
    name, version = lake.version()
    before = read(lake, version, END, None)
    late = Build("late", START + HOUR, START + 2 * HOUR, duration=50.0)
    ingest(warehouse, [queued_event(late), completed_event(late)])
    export(lake, warehouse_url)
    assert_equal(read(lake, lake.version(name)[1], END, None), before)
    after = read(lake, lake.version()[1], END, None)
    assert len(after) == len(before) + 1
    assert_equal(after, build_frame(warehouse_url, BUILD_VIEWS, END).rows)


def test_the_edges_of_time(warehouse: psycopg.Connection[Any], warehouse_url: str, tmp_path: Path) -> None:
    """A row counts from the moment after its own until the view's maximum age has passed."""
    instant, oldest = timedelta(microseconds=1), TENANT_LOAD.maximum_age
    queued = [START, START + instant, START + oldest + instant, START + oldest + 2 * instant]
    builds = [Build(f"b{number}", at, at + HOUR, duration=9.0) for number, at in enumerate(queued)]
    ingest(warehouse, events_of([*builds, Build("other", START + instant, START + HOUR, duration=9.0, tenant="other")]))
    warehouse.execute(f"DELETE FROM {TENANT_LOAD.log_table}".encode())  # noqa: S608
    warehouse.execute(
        f"INSERT INTO {TENANT_LOAD.log_table} (tenant_id, event_timestamp, created, queued_count_1h, running_count)"  # noqa: S608
        " VALUES ('acme', %(at)s, %(at)s, 7, NULL)".encode(),
        {"at": START},
    )
    lake = Lake.open(tmp_path / "lake")
    export(lake, warehouse_url)
    rows = read(lake, lake.version()[1], END, None).set_index("build_id")
    found = rows[feature_column(TENANT_LOAD, "queued_count_1h")][["b0", "b1", "b2", "b3", "other"]]
    nan = float("nan")
    np.testing.assert_array_equal(found, [nan, 7.0, 7.0, nan, nan])
    assert rows[feature_column(TENANT_LOAD, "running_count")].isna().all()
    assert_equal(rows.reset_index(), build_frame(warehouse_url, BUILD_VIEWS, END).rows[["build_id", *rows.columns]])


def test_a_damaged_file_is_told(lake: Lake, tmp_path: Path) -> None:
    version = lake.version()[1]
    entry = version.entry("builds", "acme")
    assert entry is not None
    (tmp_path / "lake" / lake.files(entry).files[0].key).write_bytes(b"PAR1")
    with pytest.raises(LakeCorrupt):
        read(lake, version, END, None)
