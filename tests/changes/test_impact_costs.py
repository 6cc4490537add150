"""What a change reaches takes no longer than the change and the code are large, however oddly the change is told."""

from __future__ import annotations

import tracemalloc

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from conductor_features.changes.changed_file import Change, ChangedFile, LineRange
from conductor_features.changes.distances import LocatedTests
from conductor_features.changes.impact_graph import Edges, ImpactGraph, impact_of
from conductor_features.changes.locating_tests import TestKeys, key_of, words_of
from conductor_features.changes.paths import facts_of
from machine import processor_seconds

Spans = list[tuple[int, int]]
_SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 4)).map(lambda one: (one[0], one[0] + one[1])))


def _graph(units: Spans) -> ImpactGraph:
    """Of one file, whose units use nothing."""
    none = Edges(np.zeros(len(units) + 2, np.int32), np.empty(0, np.int32))
    return ImpactGraph(
        paths=["a.py"],
        is_test=np.array([False]),
        unit_file=np.zeros(len(units), np.int32),
        unit_lines=np.array(units, np.int32).reshape(-1, 2),
        unit_names=[f"unit_{at}" for at in range(len(units))],
        importers=none,
        within=none,
        across=none,
    )


def _told(*places: tuple[LineRange, ...]) -> list[ChangedFile]:
    """The file, as often as there are places in it."""
    return [ChangedFile("a.py", "a.py", Change.MODIFIED, old_ranges=ranges) for ranges in places]


@settings(max_examples=300, deadline=None)
@given(_SPANS, _SPANS)
def test_units_are_those_that_a_line_by_line_comparison_finds(units: Spans, changed: Spans) -> None:
    outside = [all(one > first or end < last for one, end in units) for first, last in changed]
    expected = {
        at
        for at, (one, end) in enumerate(units)
        if not changed or any(outside) or any(one <= last and end >= first for first, last in changed)
    }
    names = [f"a.py:unit_{at}" for at in sorted(expected)]
    assert impact_of(_graph(units), _told(tuple(changed))).changed_units == names
    if changed:  # told of in pieces it is the same change
        assert impact_of(_graph(units), _told(*((one,) for one in changed))).changed_units == names


def test_a_file_that_is_told_of_again_and_again_is_looked_at_once() -> None:
    graph = _graph([(5 * at + 1, 5 * at + 5) for at in range(1_000)])
    once = processor_seconds(lambda: impact_of(graph, _told(())))
    assert processor_seconds(lambda: impact_of(graph, _told(*[()] * 5_000))) < 10 * once + 0.05


def test_lines_are_not_held_against_each_unit() -> None:
    ranges = tuple((at, at) for at in range(1, 50_000))

    def seconds(count: int) -> float:
        graph = _graph([(at + 1, 50_000) for at in range(count)])
        return processor_seconds(lambda: impact_of(graph, _told(ranges)))

    assert seconds(1_000) < 4 * seconds(1) + 0.02


_WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_WORDS.map(key_of), st.lists(st.integers(0, 3), min_size=1, max_size=2)), _WORDS)
def test_the_place_of_a_test_is_that_of_the_longest_key(keys: dict[str, list[int]], words: list[str]) -> None:
    expected = None
    for begin in range(len(words)):
        for end in range(len(words), begin, -1):
            files = keys.get(key_of(words[begin:end]))
            if expected is None and files is not None and (begin == 0 or len(files) == 1):
                expected = (files, words[end:])
    assert TestKeys(keys).place_of("::".join(words)) == expected


def test_ids_of_many_words_cost_little_more_than_to_take_them_apart() -> None:
    keys = TestKeys({f"tests test_{number} py": [number] for number in range(1_000)})
    ids = ["tests " + "x " * 63 + str(number) for number in range(2_000)]
    taken_apart = processor_seconds(lambda: [words_of(one) for one in ids])
    assert processor_seconds(lambda: [keys.place_of(one) for one in ids]) < 5 * taken_apart + 0.05


def test_what_is_remembered_is_bounded_by_its_length() -> None:
    """Ids of five hundred characters, and paths of four thousand, of four bytes each, which nobody asks for again."""
    graph = _graph([])
    impact, tests = impact_of(graph, _told(())), LocatedTests(graph)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for call in range(10):
            tests.distances(impact, [f"😀{call} {number} " + "x" * 490 for number in range(4_000)])
            for number in range(500):
                facts_of(f"😀{call} {number} " + "x" * 4_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held - before < 60e6
