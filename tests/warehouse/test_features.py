"""Feature rows are what the definition says, whatever order the events come in, and know nothing of the future."""

from __future__ import annotations

import random
from datetime import timedelta

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from conductor_features.views import BUILD_VIEWS, VIEWS
from conductor_warehouse.events import Event, parse
from conductor_warehouse.features import log as feature_log
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.subjects.builds import store as store_builds
from warehouse.histories import (
    START,
    Build,
    assert_log_is_right,
    clear,
    completed_event,
    dump,
    events_of,
    expected_row,
    latest_rows,
    queued_event,
    random_history,
    same,
)

pytestmark = pytest.mark.long

SECOND = timedelta(seconds=1)


def _long_history(count: int) -> list[Build]:
    """One pipeline with more builds than any window holds."""
    chance = random.Random(5)
    builds = []
    for number in range(count):
        queued = START + timedelta(minutes=10 * number)
        seconds = round(chance.lognormvariate(5, 0.4), 6)
        builds.append(
            Build(
                f"b{number}",
                queued,
                queued + timedelta(seconds=seconds),
                chance.choice(["SUCCESS"] * 8 + ["FAILURE"]),
                seconds,
            )
        )
    return builds


def test_rows_are_what_the_definitions_say(warehouse: psycopg.Connection) -> None:
    builds = random_history(seed=1, count=250)
    events = events_of(builds)
    for begin in range(0, len(events), 100):
        ingest(warehouse, events[begin : begin + 100])
    assert assert_log_is_right(warehouse, builds) > 500


def test_windows_are_full_in_a_long_history(warehouse: psycopg.Connection) -> None:
    builds = _long_history(580)
    ingest(warehouse, events_of(builds))
    assert_log_is_right(warehouse, builds)
    view = VIEWS["pipeline_builds_v1"]
    last = latest_rows(warehouse, view)[("acme", "acme/shop", "test"), max(b.completed for b in builds if b.completed)]
    assert last["passed_count"] == 500
    assert None not in last.values()


HISTORY = random_history(seed=2, count=14, tenants=("acme",)) + random_history(seed=3, count=4, tenants=("globex",))
# The same builds told a second time, otherwise: later, earlier, and at the same time under another id.
RETOLD = [
    completed_event(
        Build(b.build_id, b.queued, b.queued + 99 * SECOND, "SUCCESS", 55.5, b.tenant, b.repository, "deploy", "main"),
        event_id=f"again-{b.build_id}",
        time=(b.completed or b.queued) + shift * SECOND,
    )
    for b, shift in zip(HISTORY[:3], (5, -5, 0), strict=True)
] + [
    queued_event(
        Build(HISTORY[4].build_id, HISTORY[4].queued + 30 * SECOND, None, tenant=HISTORY[4].tenant),
        event_id="requeued",
        time=HISTORY[4].queued + SECOND,
    )
]
EVENTS = events_of(HISTORY) + RETOLD


@st.composite
def _deliveries(draw: st.DrawFn) -> list[list[bytes]]:
    """All events in any order, some more than once, cut into any batches."""
    order = draw(st.permutations(range(len(EVENTS))))
    again = draw(st.lists(st.sampled_from(range(len(EVENTS))), max_size=8))
    events = [EVENTS[index] for index in [*order, *again]]
    cuts = sorted(draw(st.sets(st.integers(1, len(events) - 1), max_size=8)))
    return [events[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]


@given(deliveries=_deliveries())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_batches_and_duplicates_do_not_matter(
    warehouse: psycopg.Connection, deliveries: list[list[bytes]]
) -> None:
    clear(warehouse)
    ingest(warehouse, EVENTS)
    expected = dump(warehouse)
    clear(warehouse)
    results = [ingest(warehouse, batch) for batch in deliveries]
    assert dump(warehouse) == expected
    assert sum(result.stored for result in results) == len(EVENTS)
    # Not only the same, but right: what the log says is what the builds, as they ended up, say.
    for view in BUILD_VIEWS:
        rows = latest_rows(warehouse, view)
        moments = sorted(rows)
        computed = feature_log.compute(warehouse, view, moments)
        assert [tuple(rows[moment].values()) for moment in moments] == computed


def test_reverse_order_is_right_by_the_definitions(warehouse: psycopg.Connection) -> None:
    builds = random_history(seed=4, count=40)
    for event in reversed(events_of(builds)):
        ingest(warehouse, [event])
    assert_log_is_right(warehouse, builds)


def test_a_late_event_corrects_the_rows_after_it_and_leaves_the_others_alone(warehouse: psycopg.Connection) -> None:
    builds = _long_history(40)
    late = builds[5]
    ingest(warehouse, events_of([build for build in builds if build is not late]))
    view = VIEWS["repository_builds_v1"]
    [(before,)] = warehouse.execute(f"SELECT count(*) FROM {view.log_table}").fetchall()  # noqa: S608
    ingest(warehouse, [completed_event(late)])
    rows = warehouse.execute(
        f"SELECT event_timestamp, count(*), count(DISTINCT created) FROM {view.log_table} GROUP BY 1 ORDER BY 1"  # noqa: S608
    ).fetchall()
    corrected = [moment for moment, count, distinct in rows if count == distinct == 2]
    assert len(rows) == before + 1  # its own
    assert late.completed is not None
    assert min(corrected) > late.completed
    # The row is of the latest 30: beyond that the late build is forgotten, and nothing was written again.
    assert 20 <= len(corrected) < 34
    ingest(warehouse, [queued_event(late)])
    assert_log_is_right(warehouse, builds)


@pytest.mark.parametrize("seed", range(4))
def test_planted_futures_never_reach_a_row(warehouse: psycopg.Connection, seed: int) -> None:
    """Everything that happens after a moment is replaced by absurd values; the rows up to it stay the same."""
    builds = random_history(seed=10 + seed, count=60)
    moments = sorted(build.completed for build in builds if build.completed)
    at = moments[len(moments) // 2]
    planted = [build for build in builds if build.queued <= at]
    planted = [
        # Running at that moment: how it will end is the future.
        Build(b.build_id, b.queued, at + 7_000_000 * SECOND, "SUCCESS", 6_999_999.0, b.tenant, b.repository, b.pipeline)
        if b.completed is None or b.completed > at
        else b
        for b in planted
    ]
    planted += [
        Build(f"future{n}", at + SECOND, at + (n + 2) * SECOND, "FAILURE", 1e-6, tenant, repository, pipeline, branch)
        for n, (tenant, repository, pipeline, branch) in enumerate(
            {(b.tenant, b.repository, b.pipeline, b.branch) for b in builds}
        )
    ]
    ingest(warehouse, events_of(builds))
    real = {view.key: _until(latest_rows(warehouse, view), at) for view in BUILD_VIEWS}
    clear(warehouse)
    ingest(warehouse, events_of(planted))
    assert {view.key: _until(latest_rows(warehouse, view), at) for view in BUILD_VIEWS} == real
    assert sum(map(len, real.values())) > 60


def _until(rows: dict, at: object) -> dict:
    return {moment: row for moment, row in rows.items() if moment[1] <= at}


def test_compute_is_point_in_time_for_any_moment(warehouse: psycopg.Connection) -> None:
    builds = random_history(seed=20, count=80)
    ingest(warehouse, events_of(builds))
    chance = random.Random(0)
    for view in BUILD_VIEWS:
        entities = sorted({moment[0] for moment in latest_rows(warehouse, view)})
        moments = [
            (chance.choice(entities), START + timedelta(seconds=chance.randrange(-1000, 90_000))) for _ in range(200)
        ]
        for moment, row in zip(moments, feature_log.compute(warehouse, view, moments), strict=True):
            expected = expected_row(view, moment, builds)
            for name, value in zip(view.field_names, row, strict=True):
                assert same(name, value, expected[name]), (view.key, moment, name)


def test_every_view_of_builds_is_defined(warehouse: psycopg.Connection) -> None:
    event = parse(completed_event(Build("b", START, START + SECOND, duration=1.0)))
    assert isinstance(event, Event)
    with warehouse.transaction():
        touched = store_builds(warehouse, [event])
    assert set(touched) == {view.key for view in BUILD_VIEWS}
    for view in BUILD_VIEWS:
        [row] = feature_log.compute(warehouse, view, [(tuple("x" for _ in view.entity), START)])
        assert len(row) == len(view.fields)
        # Nothing is known of an entity without builds: counts are 0, everything else is missing.
        assert {value for value in row if value is not None} <= {0.0}
