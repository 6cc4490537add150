"""Batches that are wrong as a whole are parked, and nothing else is."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

import programs
from conductor_warehouse.data_quality import histogram, parked_batches, profile
from conductor_warehouse.data_quality.fields import SPECS
from conductor_warehouse.data_quality.mode import Mode
from conductor_warehouse.data_quality.parked_batches import NotParked
from conductor_warehouse.events import EVENT_TYPES, Event, parse
from conductor_warehouse.ingestion import IngestResult, ingest
from conductor_warehouse.roles import READER_ROLE, bind
from warehouse.catalogue import random_events, state
from warehouse.histories import START, Build, completed_event, envelope, events_of, queued_event, stamp

HOUR = timedelta(hours=1)
WITHOUT_THE_REST = ("data_profiles", "data_findings", "parked_batches", "parked_events")


def builds(
    prefix: str,
    begin: datetime,
    count: int = 300,
    *,
    factor: float = 1.0,
    tenant: str = "acme",
    pipelines: Sequence[tuple[str, float]] = (("lint", 4.0), ("test", 300.0), ("nightly", 20_000.0)),
) -> list[Build]:
    """Builds of pipelines that differ by much, one each ten minutes."""
    chance = random.Random(prefix)
    made = []
    for number in range(count):
        pipeline, level = pipelines[number % len(pipelines)]
        seconds = round(level * chance.lognormvariate(0, 0.2), 3)
        queued = begin + timedelta(minutes=10 * number)
        made.append(
            Build(
                f"{prefix}{number}",
                queued,
                queued + timedelta(seconds=seconds),
                duration=round(seconds * factor, 6),
                tenant=tenant,
                pipeline=pipeline,
            )
        )
    return made


HISTORY = builds("h", START)
LATER = START + timedelta(days=4)
WRONG = builds("w", LATER, factor=1e-3)
"""Seconds that were divided by a thousand."""


def bring(connection: psycopg.Connection, made: Sequence[Build]) -> IngestResult:
    return ingest(connection, events_of(made))


def parked(connection: psycopg.Connection, status: str | None = "parked") -> list[parked_batches.ParkedBatch]:
    return parked_batches.find(connection, status=status)


def findings(connection: psycopg.Connection) -> set[tuple[str, str, str, str]]:
    return set(connection.execute("SELECT event_type, check_name, field, severity FROM data_findings").fetchall())


def test_a_batch_in_another_unit_is_parked_whole_and_nothing_else_is_written(warehouse: psycopg.Connection) -> None:
    assert bring(warehouse, HISTORY).parked == 0
    before = state(warehouse)
    result = bring(warehouse, WRONG)
    assert (result.received, result.stored, result.parked, result.dead_letter_count) == (600, 0, 600, 0)
    assert state(warehouse) == before
    [batch] = parked(warehouse)
    assert (batch.tenant_id, batch.event_count) == ("acme", 600)
    assert batch.event_counts == {"build.queued": 300, "build.completed": 300}
    assert "build.completed.duration: distribution" in batch.reason
    assert "times shorter than the same pipelines had" in batch.reason
    assert batch.findings[0]["figures"]["ratio_by_stratum"] == pytest.approx(1000, rel=0.2)
    assert len(parked_batches.sample(warehouse, batch, 3)) == 3
    assert ("build.completed", "distribution", "duration", "error") in findings(warehouse)
    # The day's profile is still that of what was stored: the next good batch passes.
    assert bring(warehouse, builds("n", LATER + 40 * HOUR)).stored == 600


def test_the_same_batch_is_parked_once(warehouse: psycopg.Connection) -> None:
    bring(warehouse, HISTORY)
    for _ in range(3):
        assert bring(warehouse, WRONG).parked == 600
    assert len(parked(warehouse)) == 1
    assert warehouse.execute("SELECT count(*) FROM parked_events").fetchall() == [(600,)]


@pytest.mark.parametrize(
    "innocent",
    [
        pytest.param(builds("n", LATER, factor=1e-3, tenant="globex"), id="a new tenant"),
        pytest.param(builds("o", START - timedelta(days=90), factor=1e-3), id="a backfill of older history"),
        pytest.param(builds("p", LATER, pipelines=[("echo", 0.2)]), id="a new pipeline, a thousand times as fast"),
        pytest.param(builds("m", LATER, pipelines=[("nightly", 20_000.0)]), id="only the slowest pipeline"),
        pytest.param(builds("f", LATER, factor=0.05), id="twenty times as fast"),
        pytest.param(WRONG[:199], id="too few to say"),
        pytest.param(HISTORY, id="what is stored already"),
    ],
)
def test_what_may_be_right_is_not_parked(warehouse: psycopg.Connection, innocent: list[Build]) -> None:
    bring(warehouse, HISTORY)
    assert bring(warehouse, innocent).parked == 0
    assert parked(warehouse) == []


def test_a_batch_that_is_stored_already_is_no_news_even_if_it_would_be_parked_now(
    warehouse: psycopg.Connection,
) -> None:
    bring(warehouse, HISTORY)
    result = ingest(warehouse, events_of(WRONG), mode=Mode.RECORD)
    assert (result.stored, result.parked) == (600, 0)
    assert ("build.completed", "distribution", "duration", "warning") in findings(warehouse)
    result = bring(warehouse, WRONG)
    assert (result.stored, result.duplicates, result.parked) == (0, 600, 0)
    assert ("build.completed", "duplicate_share", "", "warning") in findings(warehouse)


def without_durations(made: Sequence[Build]) -> list[bytes]:
    return events_of([replace(build, duration=None) for build in made])


def at_one_moment(made: Sequence[Build]) -> list[bytes]:
    return events_of([replace(build, queued=LATER, completed=LATER + 10 * HOUR) for build in made])


def half_broken(made: Sequence[Build]) -> list[bytes]:
    broken = [queued_event(build).replace(b'"queuedTime"', b'"queued"') for build in made]
    return [*broken, *(completed_event(build) for build in made[:-10])]


@pytest.mark.parametrize(
    ("spoil", "check"),
    [(without_durations, "completeness"), (at_one_moment, "constant_time"), (half_broken, "dead_letter_share")],
)
def test_other_ways_to_be_wrong_as_a_whole(
    warehouse: psycopg.Connection, spoil: Callable[[Sequence[Build]], list[bytes]], check: str
) -> None:
    good = builds("g", LATER)
    # Without a history each of them is taken as it is.
    first = ingest(warehouse, [event.replace(b'"acme"', b'"globex"') for event in spoil(good)])
    assert first.parked == 0
    assert first.stored > 0
    bring(warehouse, HISTORY)
    before = state(warehouse)
    events = spoil(good)
    assert ingest(warehouse, events, "acme").parked == len(events)
    assert state(warehouse) == before
    [batch] = parked(warehouse)
    assert check in {finding["check"] for finding in batch.findings}


def test_only_the_tenant_that_is_wrong_is_parked(warehouse: psycopg.Connection) -> None:
    bring(warehouse, HISTORY)
    other = builds("x", LATER, tenant="globex")
    result = ingest(warehouse, [*events_of([*WRONG, *other]), b"garbage"])
    assert (result.received, result.stored, result.parked, result.dead_letter_count) == (1201, 600, 600, 1)
    assert {tenant for (tenant,) in warehouse.execute("SELECT tenant_id FROM inbox")} == {"acme", "globex"}


def test_test_results_in_another_unit(warehouse: psycopg.Connection) -> None:
    def runs(prefix: str, begin: datetime, factor: float) -> list[bytes]:
        chance = random.Random(1)
        return [
            envelope(
                "test.completed",
                f"{prefix}{number}",
                begin + number * HOUR,
                "acme",
                {
                    "runId": f"{prefix}{number}",
                    "repository": "shop",
                    "completedTime": stamp(begin + number * HOUR),
                    "results": [
                        {
                            "testId": f"t{test}",
                            "outcome": "TEST_OUTCOME_PASSED",
                            "duration": f"{10.0**test * chance.uniform(0.5, 2) * factor / 100:.6f}s",
                        }
                        for test in range(5)
                    ],
                },
            )
            for number in range(200)
        ]

    assert ingest(warehouse, runs("a", START, 1)).parked == 0
    assert ingest(warehouse, runs("b", START + 300 * HOUR, 1)).parked == 0
    assert ingest(warehouse, runs("c", START + 600 * HOUR, 1000)).parked == 200
    assert "longer than the same tests had" in parked(warehouse)[0].reason


def test_released_it_is_as_if_it_had_been_let_through(warehouse: psycopg.Connection, warehouse_url: str) -> None:
    bring(warehouse, HISTORY)
    huge = b'{"specversion": "1.0", "data": "' + b"x" * (16 << 20) + b'"}'
    events = [*events_of(WRONG), b"garbage", huge]
    assert ingest(warehouse, events, "acme").parked == 602
    [batch] = parked(warehouse)
    result = parked_batches.release(warehouse, batch.parked_batch_id)
    assert (result.received, result.stored, result.dead_letter_count, result.parked) == (602, 600, 2, 0)
    assert parked(warehouse) == []
    assert parked(warehouse, "released")[0].settled_time is not None
    assert warehouse.execute("SELECT count(*) FROM parked_events").fetchall() == [(0,)]
    released = state(warehouse), _letters(warehouse)
    with pytest.raises(NotParked, match="released already"):
        parked_batches.release(warehouse, batch.parked_batch_id)
    with pytest.raises(NotParked, match="no parked batch 999"):
        parked_batches.discard(warehouse, 999)
    assert ingest(warehouse, events, "acme").duplicates == 600
    assert (state(warehouse), _letters(warehouse)) == released

    _empty(warehouse)
    bring(warehouse, HISTORY)
    assert ingest(warehouse, events, "acme", mode=Mode.RECORD).stored == 600
    assert (state(warehouse), _letters(warehouse)) == released


def test_discarded_it_is_gone_and_remembered(warehouse: psycopg.Connection) -> None:
    bring(warehouse, HISTORY)
    before = state(warehouse)
    bring(warehouse, WRONG)
    [batch] = parked(warehouse)
    parked_batches.discard(warehouse, batch.parked_batch_id)
    assert state(warehouse) == before
    [kept] = parked(warehouse, None)
    assert (kept.status, kept.reason) == ("discarded", batch.reason)
    assert warehouse.execute("SELECT count(*) FROM parked_events").fetchall() == [(0,)]
    # Sent again it is put before somebody again.
    assert bring(warehouse, WRONG).parked == 600
    assert len(parked(warehouse)) == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
import psycopg
from conductor_warehouse import ingestion
from conductor_warehouse.data_quality import gate, parked_batches
from conductor_warehouse.event_files import read_event_file

url, file, step, point = sys.argv[1:]
def killed(function):
    def call(*arguments):
        result = function(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if point == "before commit":
    if step == "park":
        parked_batches.store = killed(parked_batches.store)
    else:
        parked_batches._settle = killed(parked_batches._settle)
with psycopg.connect(url, autocommit=True) as connection:
    if step == "park":
        ingestion.ingest(connection, read_event_file(Path(file)))
    else:
        parked_batches.release(connection, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("point", ["before commit", "after commit"])
@pytest.mark.parametrize("step", ["park", "release"])
def test_killed_midway_there_is_the_whole_or_nothing(
    warehouse: psycopg.Connection, warehouse_url: str, tmp_path: Path, step: str, point: str
) -> None:
    file = tmp_path / "wrong.ndjson"
    file.write_bytes(b"\n".join(events_of(WRONG)))
    bring(warehouse, HISTORY)
    if step == "release":
        bring(warehouse, WRONG)
    before = state(warehouse)
    assert programs.run(_KILLED, warehouse_url, str(file), step, point) == -signal.SIGKILL
    kept = len(parked(warehouse)), warehouse.execute("SELECT count(*) FROM parked_events").fetchall()[0][0]
    done = point == "after commit"
    if step == "park":
        assert state(warehouse) == before
        assert kept == ((1, 600) if done else (0, 0))
        assert bring(warehouse, WRONG).parked == 600
        assert len(parked(warehouse)) == 1
    else:
        assert (state(warehouse) == before) == (not done)
        assert kept == ((0, 0) if done else (1, 600))
        if not done:
            assert parked_batches.release(warehouse, 1).stored == 600


def test_of_two_who_release_at_once_one_does(warehouse_url: str, warehouse: psycopg.Connection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bring(warehouse, HISTORY)
    bring(warehouse, WRONG)

    def release(_: int) -> int:
        with psycopg.connect(warehouse_url, autocommit=True) as connection:
            try:
                return parked_batches.release(connection, 1).stored
            except NotParked:
                return -1

    with ThreadPoolExecutor(3) as threads:
        assert sorted(threads.map(release, range(3))) == [-1, -1, 600]
    assert warehouse.execute("SELECT count(*) FROM inbox").fetchall() == [(1200,)]


def test_a_tenant_sees_its_own_only(warehouse: psycopg.Connection) -> None:
    for tenant in ("acme", "globex"):
        ingest(warehouse, events_of(builds("h", START, tenant=tenant)), tenant)
        assert ingest(warehouse, events_of(builds("w", LATER, factor=1e-3, tenant=tenant)), tenant).parked == 600
    for table in WITHOUT_THE_REST:
        with warehouse.transaction():
            bind(warehouse, READER_ROLE, "acme")
            seen = warehouse.execute(f"SELECT DISTINCT tenant_id FROM {table}").fetchall()  # noqa: S608
            assert seen == [("acme",)], table
            with pytest.raises(psycopg.errors.InsufficientPrivilege), warehouse.transaction():
                warehouse.execute(f"DELETE FROM {table}")  # noqa: S608


@pytest.mark.parametrize("seed", range(3))
def test_events_of_every_type_pass_and_are_counted(warehouse: psycopg.Connection, seed: int) -> None:
    events = random_events(seed, 1500)
    for at in range(0, len(events), 500):
        assert ingest(warehouse, events[at : at + 500]).parked == 0
    ingest(warehouse, events[:500])
    counted = warehouse.execute(
        "SELECT tenant_id, event_type, sum(stored_count)::bigint, sum((profile->>'events')::bigint)::bigint"
        " FROM data_profiles GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()
    stored = warehouse.execute(
        "SELECT tenant_id, event_type, count(*), count(*) FROM inbox GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()
    assert counted == stored
    assert warehouse.execute(
        "SELECT sum(received_count)::int, sum(duplicate_count)::int, bool_and(received_count = stored_count +"
        " duplicate_count) FROM data_profiles"
    ).fetchall() == [(2000, 500, True)]


def test_off_keeps_nothing(warehouse: psycopg.Connection) -> None:
    assert ingest(warehouse, events_of(HISTORY), mode=Mode.OFF).stored == 600
    assert warehouse.execute("SELECT count(*) FROM data_profiles").fetchall() == [(0,)]


def test_every_type_of_event_is_looked_at() -> None:
    assert set(SPECS) == set(EVENT_TYPES)


def test_profiles_of_parts_add_up_to_that_of_the_whole() -> None:
    events = [event for event in map(parse, random_events(5, 800)) if isinstance(event, Event)]
    received = datetime(2026, 9, 1, tzinfo=UTC)
    for kind in EVENT_TYPES:
        own = [event for event in events if event.type == kind]
        whole = profile.of(kind, own, received)
        parts = profile.merge([profile.of(kind, own[:20], received), profile.of(kind, own[20:], received)])
        parts.distinct_times = whole.distinct_times  # within each batch
        assert parts == whole
        times = [
            None if at is None else datetime.fromtimestamp(at / 1e6, UTC) for at in (whole.first_time, whole.last_time)
        ]
        assert profile.from_json(json.loads(json.dumps(profile.to_json(whole))), *times) == whole


def test_histograms() -> None:
    generator = np.random.default_rng(1)
    values = generator.lognormal(3, 2, 5000)
    found = histogram.of(values)
    for share in (0.05, 0.25, 0.5, 0.9, 0.99):
        assert histogram.quantile(found, share) == pytest.approx(np.quantile(values, share), rel=0.1)
    assert histogram.merge([histogram.of(values[:10]), histogram.of(values[10:])]) == found
    assert histogram.quantile(histogram.of(np.array([0.0, -3.0, 1e-9])), 0.5) == 0.0
    again = histogram.of(generator.lognormal(3, 2, 5000))
    shifted = histogram.of(values * 4)
    assert histogram.population_stability_index(found, again) < 0.02
    assert histogram.population_stability_index(found, shifted) > 0.25
    assert histogram.kolmogorov_smirnov(found, again) < 0.05
    # Of normal distributions one apart by 0.69 standard deviations: 2Φ(0.347) − 1.
    assert histogram.kolmogorov_smirnov(found, shifted) == pytest.approx(0.27, abs=0.03)
    assert histogram.outlier_count(histogram.of(np.array([*[1.0] * 99, 1e6]))) == 1
    assert histogram.outlier_count(found) < 10


def _letters(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT tenant_id, digest, event_id, event_source, reason, form, payload, truncated FROM dead_letters"
        " ORDER BY 1, 2"
    ).fetchall()


def _empty(connection: psycopg.Connection) -> None:
    tables = connection.execute(
        "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
        " AND relname !~ 'yoyo|^feature_views$|^time_tables$|^statistics'"
    ).fetchall()
    connection.execute(f"TRUNCATE {', '.join(name for (name,) in tables)} RESTART IDENTITY CASCADE".encode())
