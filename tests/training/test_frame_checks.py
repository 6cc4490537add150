"""A frame that is not what it should be is not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest

from conductor_model_store import ModelStore
from conductor_training.build_duration.columns import VIEWS
from conductor_training.frame import BuildFrame, build_frame
from conductor_training.frame_checks import FrameRefused, Severity, check_frame, require_fit
from conductor_training.jobs import train_build_duration
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded import EmbeddedPostgres
from conductor_workbench.simulate.builds import Simulation, simulate
from databases import migrated

SIMULATION = Simulation(tenants=2, builds=1500, days=60, seed=3)
MEDIAN = "pipeline_builds_v1__median_duration_7"


@pytest.fixture(scope="module")
def frame(embedded_postgres: EmbeddedPostgres) -> BuildFrame:
    events = sorted(
        (event for queued, completed, _ in simulate(SIMULATION) for event in (queued, completed)),
        key=lambda event: event.time,
    )
    with migrated(embedded_postgres) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            ingest(connection, [event.to_json().encode() for event in events])
        return build_frame(url, VIEWS, SIMULATION.start + timedelta(days=90))


def spoilt(frame: BuildFrame, spoil: Callable[[pd.DataFrame], pd.DataFrame | None]) -> BuildFrame:
    rows = frame.rows.copy()
    return replace(frame, rows=rows if (other := spoil(rows)) is None else other)


def test_a_frame_as_it_comes_is_fit(frame: BuildFrame) -> None:
    assert len(frame.rows) > 1000
    assert [one for one in check_frame(frame, VIEWS) if one.severity is Severity.ERROR] == []
    empty = BuildFrame(pd.DataFrame(), frame.until)
    assert check_frame(empty, VIEWS) == []


def _set(column: str, value: object, rows: slice = slice(7, 8)) -> Callable[[pd.DataFrame], None]:
    def spoil(frame: pd.DataFrame) -> None:
        frame.iloc[rows, frame.columns.get_loc(column)] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "column", "text"),
    [
        pytest.param(lambda rows: rows.drop(columns=MEDIAN), MEDIAN, "absent", id="absent"),
        pytest.param(_set("duration", -1.0), "duration", "not from 0", id="negative"),
        pytest.param(_set("duration", 1e7), "duration", "not from 0", id="a year"),
        pytest.param(_set("duration", np.nan), "duration", "not from 0", id="unknown"),
        pytest.param(_set("duration", np.inf), "duration", "not from 0", id="infinite"),
        pytest.param(
            _set("pipeline_builds_v1__failure_rate_20", 1.2), "pipeline_builds_v1__failure_rate_20", "not from 0 to 1"
        ),
        pytest.param(_set("tenant_id", ""), "tenant_id", "without a text", id="no tenant"),
        pytest.param(
            _set("pipeline_builds_v1__last_completed_time", 5.0),
            "last_completed_time",
            "not from 9.46685e+08",
            id="1970",
        ),
        pytest.param(lambda rows: pd.concat([rows, rows.tail(1)]), "build_id", "stand twice", id="twice"),
        pytest.param(lambda rows: rows.iloc[::-1], "queued_time", "not in its order", id="backwards"),
        pytest.param(_set(MEDIAN, np.nan, slice(-250, None)), MEDIAN, "told in 0% of the latest", id="vanished"),
    ],
)
def test_what_is_wrong_is_told_and_refused(
    frame: BuildFrame, spoil: Callable[[pd.DataFrame], pd.DataFrame | None], column: str, text: str
) -> None:
    with pytest.raises(FrameRefused, match="not fit to train on") as refused:
        require_fit(spoilt(frame, spoil), VIEWS)
    assert any(column in one.column and text in one.message for one in refused.value.findings), refused.value


def test_a_change_is_told_and_no_reason_to_refuse(frame: BuildFrame) -> None:
    def slower(rows: pd.DataFrame) -> None:
        rows.iloc[-300:, rows.columns.get_loc("duration")] *= 20

    findings = require_fit(spoilt(frame, slower), VIEWS)
    assert ("distribution", "duration") in {(one.check, one.column) for one in findings}
    assert all(one.severity is Severity.WARNING for one in findings)


def test_nothing_is_trained_on_it(frame: BuildFrame, tmp_path: Path) -> None:
    wrong = spoilt(frame, _set("duration", -1.0))
    store = ModelStore.open(tmp_path / "models")
    with pytest.raises(FrameRefused):
        list(train_build_duration(read_frame=lambda _: wrong, store=store))
    assert not store.pointers()
