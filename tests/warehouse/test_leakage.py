"""M2: what happens after a moment never reaches a row of that moment, of any view, in whatever order it is told.

Absurd events are planted: every test fails and takes twelve days, builds last for weeks, measurements are of 10¹².
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from conductor_features.views import BUILD_VIEWS, VIEWS
from conductor_training.frame import build_frame
from conductor_warehouse.data_quality.mode import Mode
from conductor_warehouse.features import log
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded import EmbeddedPostgres
from databases import migrated
from warehouse.catalogue import TENANTS, random_events
from warehouse.histories import START, Build, Moment, completed_event, envelope, latest_rows, queued_event, stamp

INSTANT = timedelta(microseconds=1)
ABSURD_SECONDS = 1_000_100
ABSURD_COUNT = 10**12
Row = dict[str, float | None]
Rows = dict[str, dict[Moment, Row]]
"""By view and moment."""

RUNNING = [
    Build(
        f"running-{number}",
        START - timedelta(seconds=ABSURD_SECONDS),
        None,
        tenant=tenant,
        repository=repository,
        pipeline=pipeline,
        branch=branch,
    )
    for number, (tenant, repository, pipeline, branch, _) in enumerate(
        itertools.product(TENANTS, ["acme/shop", "acme/api"], ["test", "deploy"], ["main", "feature"], range(2))
    )
]
"""Begun before everything else. How, and after how long, they end is the future."""


@pytest.mark.parametrize("seed", range(2))
def test_the_future_never_reaches_a_row(
    warehouse: psycopg.Connection, warehouse_url: str, embedded_postgres: EmbeddedPostgres, seed: int
) -> None:
    chance = random.Random(seed)
    past, now = _history(seed)
    future = [
        *_absurd("first", now + INSTANT),
        *_absurd("second", now + timedelta(seconds=chance.randrange(1, 3600)), running=()),
    ]
    _take_in(warehouse, past)
    rows = _rows(warehouse)
    at_random = _moments(rows, now, chance)
    computed = _compute(warehouse, at_random)
    frame = build_frame(warehouse_url, BUILD_VIEWS, now).digest()

    _take_in(warehouse, future)
    after = _rows(warehouse)
    assert _leaked(rows, after, now) == {}
    # Nor a row that is computed only now, as of any moment until then, together with rows of the future; nor what a
    # model is trained on.
    together = {
        key: [*told, *((entity, now + timedelta(days=1)) for entity, _ in told)] for key, told in at_random.items()
    }
    again = {key: told[: len(computed[key])] for key, told in _compute(warehouse, together).items()}
    assert again == computed
    assert build_frame(warehouse_url, BUILD_VIEWS, now).digest() == frame

    # The rows after that moment are full of it, so there was something to leak.
    for key, view_rows in after.items():
        known, absurd = _latest(rows[key]), _latest(view_rows)
        assert set(known) <= set(absurd), key
        assert all(absurd[entity] != known[entity] for entity in known if entity in _touched(view_rows, now)), key
        assert len(_touched(view_rows, now)) >= len(TENANTS), key

    # The future is told first, and the past in any order.
    chance.shuffle(past)
    with migrated(embedded_postgres) as url, psycopg.connect(url, autocommit=True) as other:
        _take_in(other, future)
        _take_in(other, past)
        assert _leaked(rows, _rows(other), now) == {}


def test_what_happens_at_a_moment_is_in_its_row_and_in_none_before(
    warehouse: psycopg.Connection, warehouse_url: str
) -> None:
    past, now = _history(99)
    asked = Build("asked", now, now + timedelta(seconds=60), "SUCCESS", 60.0, "acme", "acme/shop", "test", "main")
    _take_in(warehouse, [*past, queued_event(asked), completed_event(asked)])
    rows, trained = _rows(warehouse), _training_row(warehouse_url, asked)
    _take_in(warehouse, _absurd("now", now))
    after = _rows(warehouse)
    assert _leaked(rows, after, now - INSTANT) == {}
    found = _leaked(rows, after, now)
    assert set(found) == set(VIEWS), "a row as of a moment tells of what happened at that moment"
    assert {at for view_rows in found.values() for _, at in view_rows} == {now}
    # A build that is queued at this moment is predicted from the rows before it.
    assert _training_row(warehouse_url, asked) == trained


def test_a_leak_would_be_seen(warehouse: psycopg.Connection, warehouse_url: str) -> None:
    """The control: the same events, a microsecond earlier than allowed, are found in every view, whoever looks."""
    past, now = _history(98)
    asked = Build("asked", now, now + timedelta(seconds=60), "SUCCESS", 60.0, "acme", "acme/shop", "test", "main")
    _take_in(warehouse, [*past, queued_event(asked), completed_event(asked)])
    rows, trained = _rows(warehouse), _training_row(warehouse_url, asked)
    computed = _compute(warehouse, {key: [(entity, now) for entity in _latest(rows[key])] for key in rows})
    _take_in(warehouse, _absurd("early", now - INSTANT))
    assert set(_leaked(rows, _rows(warehouse), now)) == set(VIEWS)
    again = _compute(warehouse, {key: [(entity, now) for entity in _latest(rows[key])] for key in rows})
    assert all(again[key] != computed[key] for key in VIEWS)
    assert _training_row(warehouse_url, asked) != trained


def _history(seed: int) -> tuple[list[bytes], datetime]:
    """Events up to a moment, that of one of them, which is returned too."""
    events = random_events(seed, 360, gaps=(0, 0, 7, 60, 1200))
    chance = random.Random(seed)
    now = _time(events[chance.randrange(len(events) // 2, len(events) * 3 // 4)])
    # What came after that moment makes way for the absurd.
    return [*map(queued_event, RUNNING), *(event for event in events if _time(event) <= now)], now


def _time(event: bytes) -> datetime:
    return datetime.fromisoformat(json.loads(event)["time"])


def _absurd(name: str, at: datetime, running: Sequence[Build] = tuple(RUNNING)) -> list[bytes]:
    """Events of every kind that features are of, all at one moment, of every entity."""
    events = []
    for number, build in enumerate(running):
        seconds = (at - build.queued).total_seconds()
        outcome = "SUCCESS" if number % 2 else "FAILURE"
        ended = Build(build.build_id, build.queued, at, outcome, seconds, build.tenant, build.repository,
                      build.pipeline, build.branch)  # fmt: skip
        events.append(completed_event(ended))
    for tenant in TENANTS:
        events += [queued_event(Build(f"{name}-{number}", at, None, tenant=tenant)) for number in range(40)]
        usage = dict.fromkeys(("buildCount", "storedBytes", "userCount", "webhookCount"), str(ABSURD_COUNT))
        events.append(envelope("usage.updated", f"u-{name}", at, tenant, {"measuredTime": stamp(at), **usage}))
        for repository in ("shop", "api"):
            results = [
                {"testId": f"t{test}", "outcome": "TEST_OUTCOME_FAILED", "duration": f"{ABSURD_SECONDS}s"}
                for test in range(4)
            ]
            subject = f"{name}-{repository}"
            run = {
                "runId": subject,
                "repository": repository,
                "completedTime": stamp(at),
                "changedPaths": ["a.py", "b.py", "c/d.md"],
                "results": results,
            }
            events.append(envelope("test.completed", f"t-{subject}", at, tenant, run))
            evaluation = {
                "evaluationId": subject,
                "repository": repository,
                "branch": "main",
                "evaluatedTime": stamp(at),
                "status": "QUALITY_GATE_STATUS_FAILED",
                "scores": [{"metric": "maintainability", "value": float(ABSURD_COUNT)}],
                "coverageRatio": 0.0,
                "issues": {"majorCount": str(ABSURD_COUNT)},
            }
            events.append(envelope("quality_gate.evaluated", f"g-{subject}", at, tenant, evaluation))
    return events


def _take_in(connection: psycopg.Connection[Any], events: Sequence[bytes]) -> None:
    for begin in range(0, len(events), 100):
        batch = list(events[begin : begin + 100])
        # What is absurd would be parked otherwise.
        result = ingest(connection, batch, mode=Mode.RECORD)
        assert result.stored == len(batch), result


def _rows(connection: psycopg.Connection[Any]) -> Rows:
    return {view.key: latest_rows(connection, view) for view in VIEWS.values()}


def _until(rows: Mapping[Moment, Row], last: datetime) -> dict[Moment, Row]:
    return {moment: row for moment, row in rows.items() if moment[1] <= last}


def _leaked(before: Rows, after: Rows, last: datetime) -> dict[str, dict[Moment, tuple[Row | None, Row | None]]]:
    """By view, rows up to a moment that are others than before, or were not there, or are gone."""
    found = {}
    for key in VIEWS:
        one, other = _until(before[key], last), _until(after[key], last)
        assert one, key
        differ = {
            moment: (one.get(moment), other.get(moment))
            for moment in one.keys() | other.keys()
            if one.get(moment) != other.get(moment)
        }
        if differ:
            found[key] = differ
    return found


def _latest(rows: Mapping[Moment, Row]) -> dict[tuple[str, ...], Row]:
    """Each entity's latest row."""
    return {entity: rows[entity, at] for entity, at in sorted(rows)}


def _touched(rows: Mapping[Moment, Row], after: datetime) -> set[tuple[str, ...]]:
    return {entity for entity, at in rows if at > after}


def _moments(rows: Rows, last: datetime, chance: random.Random) -> dict[str, list[Moment]]:
    """By view, entities at random moments up to the last one."""
    span = (last - START) // INSTANT
    return {
        key: [(chance.choice(entities), START + chance.randrange(span + 1) * INSTANT) for _ in range(100)]
        + [(entity, last) for entity in entities]
        for key, entities in ((key, sorted({entity for entity, _ in view_rows})) for key, view_rows in rows.items())
    }


def _compute(connection: psycopg.Connection[Any], moments: Mapping[str, Sequence[Moment]]) -> dict[str, list[Any]]:
    return {key: log.compute(connection, VIEWS[key], told) for key, told in moments.items()}


def _training_row(database_url: str, build: Build) -> dict[str, Any]:
    frame = build_frame(database_url, BUILD_VIEWS, START + timedelta(days=60), build.tenant).rows
    [row] = frame[frame.build_id == build.build_id].to_dict("records")
    # As text, for which NaN equals NaN; the shortest one that tells the number.
    return {str(name): repr(value) for name, value in row.items()}
