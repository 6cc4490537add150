"""The adaptive limit: what it must do whatever calls it is told of."""

from __future__ import annotations

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_rpc.concurrency_limit import AdaptiveLimit

LEAST, MOST, TARGET = 4, 100, 0.05
FAST, SLOW = st.floats(0.0, TARGET), st.floats(TARGET * 1.1, 10.0)
WINDOW, APART = 11, 0.011
"""So many calls, so far apart in time, make a window."""
ANYTHING = st.tuples(st.floats(0.0, 10.0), st.integers(0, 300), st.floats(0.0, 3.0))


class Told:
    """A limit, and the time that has passed for it."""

    def __init__(self, target: float = TARGET) -> None:
        self.limit, self.now = AdaptiveLimit(LEAST, MOST, target), 0.0

    @property
    def count(self) -> int:
        return self.limit.count(self.now)

    def calls(self, durations, taken_count: int | None = None, apart: float = APART, *, answered: bool = True) -> None:
        for seconds in durations:
            self.now += apart
            taken = self.count if taken_count is None else taken_count
            self.limit.sample(seconds, taken, self.now, answered=answered)


def windows(durations, least: int = 1, most: int = 10):
    """Durations of whole windows."""
    return st.lists(st.lists(durations, min_size=WINDOW, max_size=WINDOW), min_size=least, max_size=most).map(
        lambda found: list(chain.from_iterable(found))
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(ANYTHING, max_size=300))
def test_it_stays_in_its_bounds(calls):
    told = Told()
    for seconds, taken_count, apart in calls:
        told.calls([seconds], taken_count, apart)
        assert LEAST <= told.count <= MOST


@settings(max_examples=25, deadline=None)
@given(windows(SLOW))
def test_it_falls_while_calls_take_too_long(durations):
    told = Told()
    told.calls(durations)
    assert told.count < MOST


@settings(max_examples=25, deadline=None)
@given(st.integers(1, MOST), windows(SLOW))
def test_it_falls_below_what_was_under_way(under_way, durations):
    """Nothing would change if it fell to what nobody reaches anyway."""
    told = Told()
    told.calls(durations, under_way)
    assert told.count < max(under_way, LEAST + 1)


@settings(max_examples=25, deadline=None)
@given(windows(SLOW), windows(FAST))
def test_it_rises_when_it_is_calm_and_made_use_of(before, after):
    told = Told()
    told.calls(before)
    fallen = told.count
    told.calls(after)
    assert told.count > fallen


@settings(max_examples=25, deadline=None)
@given(windows(SLOW), windows(FAST, least=4))
def test_it_does_not_rise_when_it_is_not_made_use_of(before, after):
    told = Told()
    told.calls(before)
    fallen = told.count
    told.calls(after, (fallen - 1) // 2)
    assert told.count == fallen


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(FAST, min_size=6, max_size=6), st.lists(SLOW, min_size=5, max_size=5)), max_size=10))
def test_outliers_change_nothing(found):
    """Just under a half of the calls, whatever they took."""
    told = Told()
    for fast, outliers in found:
        told.calls(chain(*zip(fast, outliers, strict=False), fast[5:]))
    assert told.count == MOST


@settings(max_examples=25, deadline=None)
@given(windows(SLOW), st.lists(FAST, max_size=100))
def test_who_gives_up_soon_tells_nothing(slow, given_up):
    """Deadlines of a few milliseconds must not pass for answers of a few milliseconds."""
    alone, among_others = Told(), Told()
    alone.calls(slow)
    for seconds in slow:
        among_others.calls(given_up, apart=0, answered=False)
        among_others.calls([seconds])
    assert among_others.count == alone.count < MOST


def test_who_gives_up_late_took_too_long():
    told = Told()
    told.calls([1.0] * WINDOW, answered=False)
    assert told.count < MOST


def test_trouble_is_forgotten():
    told = Told()
    told.calls([1.0] * 100)
    assert told.count < MOST / 2
    told.now += 6
    assert told.count == MOST


def test_it_finds_what_a_server_can_take():
    """A processor that takes 2 ms for a call is shared by those under way: 25 of them take 50 ms each."""
    told = Told()
    found = []
    for _ in range(3000):
        told.calls([told.count * 0.002], apart=0.002)
        found.append(told.count)
    assert 15 <= sum(found[1000:]) / len(found[1000:]) <= 30
