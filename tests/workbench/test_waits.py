"""The rule for waits: a stretch of over ten minutes without a running job is not building."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from conductor_workbench.datasets.waits import LONGEST_IDLE, measure

START = datetime(2025, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def test_an_ordinary_run_keeps_its_whole_duration() -> None:
    timing = measure(START, at(20), [(at(1), at(8)), (at(9), at(19.9))])
    assert (timing.duration, timing.waiting, timing.completed) == (timedelta(minutes=20), timedelta(0), at(20))


def test_an_approval_between_jobs_is_waiting() -> None:
    timing = measure(START, at(100), [(at(1), at(5)), (at(95), at(100))])
    assert (timing.duration, timing.waiting) == (timedelta(minutes=10), timedelta(minutes=90))


def test_exactly_ten_minutes_is_still_ci_at_work() -> None:
    assert measure(START, at(25), [(at(10), at(25))]).waiting == timedelta(0)
    assert measure(START, at(25), [(at(10.001), at(25))]).waiting == timedelta(minutes=10.001)


def test_a_record_touched_a_year_later_ended_with_its_last_job() -> None:
    timing = measure(START, START + timedelta(days=400), [(at(1), at(9))])
    assert (timing.completed, timing.duration, timing.record_touched_later) == (at(9), timedelta(minutes=9), True)


def test_without_jobs_only_what_one_job_could_take_is_believed() -> None:
    assert measure(START, at(30), []).duration == timedelta(minutes=30)
    assert measure(START, START + timedelta(hours=7), []).duration is None


def test_overlapping_jobs_count_once_and_backward_ones_not_at_all() -> None:
    timing = measure(START, at(30), [(at(0), at(29)), (at(5), at(6)), (at(20), at(2))])
    assert (timing.duration, timing.waiting) == (timedelta(minutes=30), timedelta(0))


minutes = st.floats(0, 3_000)


@given(st.lists(st.tuples(minutes, minutes), max_size=8), minutes)
def test_laws(jobs: list[tuple[float, float]], updated: float) -> None:
    intervals = [(at(a), at(b)) for a, b in jobs]
    timing = measure(START, at(updated), intervals)
    assert timing.completed >= START
    assert timing.waiting >= timedelta(0)
    if timing.duration is not None:
        assert timing.duration >= timedelta(0)
        assert timing.duration + timing.waiting == timing.completed - START
    assert timing.waiting == timedelta(0) or timing.waiting > LONGEST_IDLE
    assert timing == measure(START, at(updated), list(reversed(intervals)))
