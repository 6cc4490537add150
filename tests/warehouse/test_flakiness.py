"""Which tests are flaky: the view against its definition worked out run by run, whatever the order of events."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from conductor_features.views import TEST_FLAKINESS
from conductor_warehouse.features import log
from conductor_warehouse.ingestion import ingest
from warehouse.histories import START, envelope, latest_rows, stamp

DAY = 86_400.0
Row = dict[str, float | None]


def run_event(number: int, at: datetime, results: Sequence[tuple[str, str]], run: str = "", version: int = 0) -> bytes:
    data = {
        "runId": run or f"r{number}",
        "repository": "shop",
        "completedTime": stamp(at),
        "results": [{"testId": test, "outcome": f"TEST_OUTCOME_{outcome}"} for test, outcome in results],
    }
    return envelope("test.completed", f"e{number}", at + timedelta(seconds=version), "acme", data)


def quarantine_event(number: int, at: datetime, test: str, *, released: bool = False) -> bytes:
    kind, time = ("test.released", "releasedTime") if released else ("test.quarantined", "quarantinedTime")
    return envelope(kind, f"e{number}", at, "acme", {"repository": "shop", "testId": test, time: stamp(at)})


def history(letters: str, gap: timedelta, test: str = "t") -> Iterator[tuple[datetime, bytes]]:
    """Events by letters, one for each gap of time: p passed, f failed, m failed and passed again, s skipped, q
    quarantined, r released, . nothing."""
    outcomes = {"p": ["PASSED"], "f": ["FAILED"], "m": ["ERROR", "PASSED"], "s": ["SKIPPED"]}
    for number, letter in enumerate(letters):
        at = START + gap * (number + 1)
        if letter in outcomes:
            yield at, run_event(number, at, [(test, outcome) for outcome in outcomes[letter]])
        elif letter in "qr":
            yield at, quarantine_event(number, at, test, released=letter == "r")


def row_after(connection: psycopg.Connection[Any], letters: str, gap: timedelta = timedelta(hours=1)) -> Row:
    ingest(connection, [event for _, event in history(letters, gap)])
    rows = sorted(latest_rows(connection, TEST_FLAKINESS).items(), key=lambda item: item[0][1])
    return rows[-1][1]


def seconds(place: int, gap: timedelta = timedelta(hours=1)) -> float:
    return (START + gap * (place + 1)).timestamp()


def test_one_mixed_run_is_none_of_flakiness_two_are(warehouse: psycopg.Connection) -> None:
    row = row_after(warehouse, "ppmppm")
    assert (row["mixed_run_count"], row["activation_count"]) == (2.0, 1.0)
    assert row["active_time"] == row["first_active_time"] == row["last_active_failure_time"] == seconds(5)
    first = sorted(latest_rows(warehouse, TEST_FLAKINESS).items(), key=lambda item: item[0][1])[0][1]
    assert (first["mixed_run_count"], first["activation_count"], first["active_time"]) == (1.0, 0.0, None)


def test_two_mixed_runs_far_apart_are_accidents(warehouse: psycopg.Connection) -> None:
    assert row_after(warehouse, "m" + "p" * 10 + "m", timedelta(days=3))["activation_count"] == 0.0


def test_to_and_fro_on_changing_code(warehouse: psycopg.Connection) -> None:
    row = row_after(warehouse, "pf" * 22)
    # At the fortieth result, a failure.
    assert row["activation_count"] == 1.0 and row["active_time"] == seconds(39)
    assert row["mixed_run_count"] == 0.0


def test_a_test_that_breaks_and_is_mended_is_not_flaky(warehouse: psycopg.Connection) -> None:
    assert row_after(warehouse, "p" * 30 + "fff" + "p" * 20 + "ff")["activation_count"] == 0.0


def test_after_long_enough_it_is_over_and_one_mixed_run_begins_anew(warehouse: psycopg.Connection) -> None:
    gap = timedelta(days=1)
    row = row_after(warehouse, "mm" + "p" * 20 + "f", gap)
    assert row["last_active_failure_time"] == seconds(1, gap) and row["last_failure_time"] == seconds(22, gap)
    row = row_after(warehouse, "." * 30 + "m", gap)
    assert (row["activation_count"], row["active_time"]) == (2.0, seconds(30, gap))
    assert row["first_active_time"] == seconds(1, gap)


@pytest.mark.parametrize(("passes", "gap"), [(18, timedelta(days=1)), (20, timedelta(hours=12))])
def test_too_few_results_or_too_few_days_are_not_enough(
    warehouse: psycopg.Connection, passes: int, gap: timedelta
) -> None:
    row = row_after(warehouse, "mm" + "p" * passes + "f", gap)
    assert row["last_active_failure_time"] == row["last_failure_time"] == seconds(passes + 2, gap)
    assert row["activation_count"] == 1.0


def test_quarantined_and_released(warehouse: psycopg.Connection) -> None:
    row = row_after(warehouse, "rpqpqpfp")
    assert (row["quarantined_time"], row["released_time"]) == (seconds(2), None)
    row = row_after(warehouse, "........rr")
    assert (row["quarantined_time"], row["released_time"]) == (seconds(2), seconds(8))


def test_tests_that_pass_have_no_rows(warehouse: psycopg.Connection) -> None:
    at = START + timedelta(hours=1)
    ingest(warehouse, [run_event(1, at, [("good", "PASSED"), ("bad", "FAILED"), ("none", "SKIPPED")])])
    ingest(warehouse, [run_event(2, at + timedelta(hours=1), [("good", "PASSED"), ("bad", "PASSED")])])
    assert [entity[2] for entity, _ in latest_rows(warehouse, TEST_FLAKINESS)] == ["bad"]


def random_story(seed: int, count: int = 60) -> list[bytes]:
    """Events of three tests over months, by time; runs are told again with other results and times; times tie."""
    chance = random.Random(seed)
    now, events = START, []
    for number in range(count):
        now += timedelta(seconds=chance.choice([0, 600, 40_000, 4 * DAY]))
        test = f"t{chance.randrange(3)}"
        if chance.random() < 0.15:
            events.append(quarantine_event(number, now, test, released=chance.random() < 0.5))
            continue
        fails = chance.choice([0.05, 0.05, 0.6])
        results = [
            (one, "SKIPPED" if chance.random() < 0.05 else "FAILED" if chance.random() < fails else "PASSED")
            for one in ("t0", "t1", "t2")
            for _ in range(chance.choice([1, 1, 1, 8]))
        ]
        run = f"r{chance.randrange(number + 1)}" if chance.random() < 0.15 else ""
        events.append(run_event(number, now, results, run, chance.randrange(5)))
    return events


def expected(told: Sequence[tuple[float, str, int, str]], changes: Mapping[float, bool]) -> Row:
    """A row, worked out from all results (time, run, place, outcome) and quarantines until its moment."""
    executed = [(at, outcome != "PASSED") for at, _, _, outcome in sorted(told) if outcome != "SKIPPED"]
    row: Row = {
        "results_until_failure": float(max((n for n, (_, bad) in enumerate(executed, 1) if bad), default=0)),
        "failed_runs_in_a_row": 0.0, "mixed_run_count": 0.0, "last_mixed_time": None, "last_failure_time": None,
        "activation_count": 0.0, "first_active_time": None, "active_time": None, "last_active_failure_time": None,
        "quarantined_time": None, "released_time": None,
    }  # fmt: skip
    rate, count, since_failure = math.nan, 0, 0
    open_since: float | None = None
    for at in sorted({at for at, _ in executed}):
        run = [bad for time, bad in executed if time == at]
        before = [bad for time, bad in executed if time < at]
        for old, new in pairwise([*before[-1:], *run]):
            rate = float(old != new) if math.isnan(rate) else 0.95 * rate + (1 - 0.95) * float(old != new)
        count += len(run)
        if not any(run):
            since_failure += len(run)
            continue
        mixed, last = not all(run), row["last_failure_time"]
        if open_since is not None and last is not None and since_failure >= 20 and at - last >= 14 * DAY:
            open_since = None
        again = row["last_mixed_time"] is not None and at - row["last_mixed_time"] <= 30 * DAY
        if open_since is None and ((mixed and (again or row["activation_count"])) or (count >= 40 and rate >= 0.3)):
            open_since = row["active_time"] = at
            row["first_active_time"] = row["first_active_time"] or at
            row["activation_count"] = (row["activation_count"] or 0) + 1
        if open_since is not None:
            row["last_active_failure_time"] = at
        row["failed_runs_in_a_row"] = (row["failed_runs_in_a_row"] or 0) + 1 if since_failure == 0 else 1.0
        row["mixed_run_count"] = (row["mixed_run_count"] or 0) + mixed
        row["last_mixed_time"] = at if mixed else row["last_mixed_time"]
        row["last_failure_time"] = at
        since_failure = run[::-1].index(True)
    inside = False
    for at, quarantined in sorted(changes.items()):
        if quarantined != inside:
            row["quarantined_time" if quarantined else "released_time"] = at
            inside = quarantined
    return row


def check(connection: psycopg.Connection[Any]) -> int:
    """Every row is what the facts say, twice over; returns how often a test became active."""
    results = connection.execute(
        "SELECT test_id, completed_time, run_id, result_number, outcome FROM test_results"
    ).fetchall()
    changes = connection.execute("SELECT test_id, changed_time, quarantined FROM test_quarantines").fetchall()
    rows = latest_rows(connection, TEST_FLAKINESS)
    for (entity, at), row in rows.items():
        told = [(time.timestamp(), *rest) for test, time, *rest in results if test == entity[2] and time <= at]
        own = {time.timestamp(): value for test, time, value in changes if test == entity[2] and time <= at}
        assert row == expected(told, own), (entity, at)
    moments = sorted(rows)
    again = log.compute(connection, TEST_FLAKINESS, moments)
    assert again == [tuple(rows[moment].values()) for moment in moments]
    return int(sum(row["activation_count"] or 0 for row in rows.values()))


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_what_the_definition_says_in_any_order(warehouse: psycopg.Connection, seed: int) -> None:
    events = random_story(seed)
    chance = random.Random(seed)
    chance.shuffle(events)
    while events:
        size = chance.randrange(1, 9)
        batch, events = events[:size], events[size:]
        ingest(warehouse, batch + batch[:1])
    assert check(warehouse) > 0


def test_a_late_result_reaches_tests_that_it_wants_no_row_of(warehouse: psycopg.Connection) -> None:
    """It passed between two failures: what was active may have been fixed by then."""
    gap = timedelta(days=1)
    told = [event for _, event in history("mm" + "p" * 19 + "f", gap)]
    late = told.pop(7)
    ingest(warehouse, told)
    [before] = [
        row for (_, at), row in latest_rows(warehouse, TEST_FLAKINESS).items() if at.timestamp() > seconds(2, gap)
    ]
    ingest(warehouse, [late])
    [after] = [
        row for (_, at), row in latest_rows(warehouse, TEST_FLAKINESS).items() if at.timestamp() > seconds(2, gap)
    ]
    assert before["last_active_failure_time"] == seconds(21, gap)
    assert after["last_active_failure_time"] == seconds(1, gap)


def test_in_order_nothing_is_looked_for_that_could_have_changed(
    warehouse: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each run of thousands of tests would cost a look-up for each of them."""
    looked_for: list[int] = []
    append = log._append

    def noted(connection: Any, definition: Any, what: Any, created: int) -> int:
        if definition.view is TEST_FLAKINESS:
            looked_for.append(len({*what.wanted.entities, *what.changed.entities}))
        return append(connection, definition, what, created)

    monkeypatch.setattr(log, "_append", noted)
    at = START + timedelta(hours=1)
    results = [(f"t{number}", "PASSED") for number in range(50)]
    for number in (0, 1, 3, 2):
        ingest(warehouse, [run_event(number, at + timedelta(hours=number), [*results, ("bad", "FAILED")])])
    assert looked_for == [1, 1, 1, 51]
    latest = warehouse.execute("SELECT repository, latest_time FROM test_repositories").fetchall()
    assert latest == [("shop", (at + timedelta(hours=3)).astimezone(UTC))]
