"""Events of every type: their order, batches and repetition don't matter, and rows are what the definitions say."""

from __future__ import annotations

import json
import math
import random
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import pytest

from conductor_features.views import TEST_HISTORY, VIEWS
from conductor_warehouse.features import log
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded import EmbeddedPostgres
from databases import migrated
from warehouse.catalogue import SUBJECT_TABLES, random_events, state
from warehouse.histories import latest_rows

pytestmark = pytest.mark.long


def _ingest(connection: psycopg.Connection[Any], events: list[bytes], chance: random.Random) -> None:
    position = 0
    while position < len(events):
        size = chance.choice([1, 7, 40])
        result = ingest(connection, events[position : position + size])
        assert result.dead_letter_count == 0, result.dead_letters
        position += size


@pytest.mark.parametrize("seed", range(3))
def test_order_batches_and_duplicates_do_not_matter(embedded_postgres: EmbeddedPostgres, seed: int) -> None:
    events = random_events(seed, 120)
    chance = random.Random(seed)
    shuffled = events + chance.sample(events, 30)
    chance.shuffle(shuffled)
    states = []
    for order in (events, shuffled, events[::-1]):
        with migrated(embedded_postgres) as url, psycopg.connect(url, autocommit=True) as connection:
            _ingest(connection, order, chance)
            states.append(state(connection))
    assert states[1] == states[0]
    assert states[2] == states[0]
    for table in (*SUBJECT_TABLES, *VIEWS):
        assert not states[0][table].startswith("0 rows"), table


def test_the_log_is_what_a_computation_from_scratch_gives(warehouse: psycopg.Connection) -> None:
    events = random_events(11, 400)
    chance = random.Random(1)
    # Nearly in order, with some late ones, as in life.
    events = [event for _, event in sorted(enumerate(events), key=lambda pair: pair[0] + chance.choice([0, 0, 0, 30]))]
    _ingest(warehouse, events, chance)
    for view in VIEWS.values():
        rows = latest_rows(warehouse, view)
        assert rows, view.key
        moments = sorted(rows)
        of_log = [[math.nan if value is None else value for value in rows[moment].values()] for moment in moments]
        again = log.compute(warehouse, view, moments)
        assert np.array(of_log).tobytes() == np.array(again, dtype=np.float64).tobytes(), view.key


def _expected_history(results: list[tuple[datetime, str, int, str, float | None]]) -> dict[str, float | None]:
    """Worked out result by result."""
    row: dict[str, Any] = dict.fromkeys(TEST_HISTORY.field_names)
    row |= dict.fromkeys(("run_count", "failure_count", "skip_count", "flip_count", "rerun_flip_count"), 0.0)
    row |= dict.fromkeys(("recent_run_weight", "recent_failure_weight"), 0.0)

    def blend(name: str, value: float, factor: float) -> None:
        row[name] = value if row[name] is None else factor * row[name] + (1 - factor) * value

    for at, _, _, outcome, duration in sorted(results):
        time = at.timestamp()
        row["first_run_time"] = row["first_run_time"] or time
        if outcome == "SKIPPED":
            row["skip_count"] += 1
            continue
        failed = float(outcome != "PASSED")
        row["run_count"] += 1
        if row["last_failed"] is not None:
            flipped = float(row["last_failed"] != failed)
            row["flip_count"] += flipped
            row["rerun_flip_count"] += flipped * (time == row["last_run_time"])
            blend("flip_rate_20", flipped, 0.95)
            if flipped:
                row["last_flip_time"] = time
        kept = float(np.exp2(-(time - (row["last_run_time"] or time)) / (14 * 86_400)))
        row["recent_run_weight"] = row["recent_run_weight"] * kept + 1.0
        row["recent_failure_weight"] = row["recent_failure_weight"] * kept + failed
        blend("failure_rate_2", failed, 0.5)
        blend("failure_rate_10", failed, 0.9)
        blend("failure_rate_50", failed, 0.98)
        if failed:
            row["failure_count"] += 1
            row["last_failure_time"] = time
            row["runs_since_failure"] = 0.0
        elif row["runs_since_failure"] is not None:
            row["runs_since_failure"] += 1
        row["last_failed"] = failed
        row["last_run_time"] = time
        if duration is not None:
            row["last_duration"] = duration
            blend("mean_duration_10", duration, 0.9)
    return row


def test_histories_of_tests_are_what_the_view_says(warehouse: psycopg.Connection) -> None:
    events = random_events(21, 300)
    _ingest(warehouse, events, random.Random(2))
    told = warehouse.execute(
        "SELECT tenant_id, repository, test_id, completed_time, run_id, result_number, outcome, duration"
        " FROM test_results"
    ).fetchall()
    rows = latest_rows(warehouse, TEST_HISTORY)
    assert len(rows) > 50
    for (entity, at), row in rows.items():
        own = [
            tuple(rest)
            for *key, time, run, number, outcome, duration in told
            for rest in [(time, run, number, outcome, duration)]
            if tuple(key) == entity and time <= at
        ]
        assert row == _expected_history(own), (entity, at)


def test_a_run_that_is_told_again_replaces_its_results(warehouse: psycopg.Connection) -> None:
    [first] = [e for e in random_events(3, 200) if json.loads(e)["type"] == "test.completed"][-1:]
    event = json.loads(first)
    event["data"]["results"] = [{"testId": "x", "outcome": "TEST_OUTCOME_FAILED"}] * 2
    event["data"]["changedPaths"] = ["a.py"]
    ingest(warehouse, [json.dumps(event).encode()])
    event["id"] = "again"
    event["time"] = "2026-11-01T00:00:00Z"
    event["data"]["results"] = [{"testId": "y", "outcome": "TEST_OUTCOME_PASSED"}]
    ingest(warehouse, [json.dumps(event).encode()])
    assert warehouse.execute("SELECT test_id FROM test_results").fetchall() == [("y",)]
    rows = {entity[2]: row for (entity, _), row in latest_rows(warehouse, TEST_HISTORY).items()}
    assert rows["x"]["run_count"] == 0.0 and rows["y"]["run_count"] == 1.0
    assert warehouse.execute("SELECT count(*) FROM feature_log_test_history_v2").fetchone() == (3,)
