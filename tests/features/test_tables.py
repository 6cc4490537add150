"""Rows side by side are the rows that decoding one by one gives, whatever happened to the bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conductor_features.codec import CorruptValue, decode, encode
from conductor_features.keys import entity_key
from conductor_features.rows import ABSENT, UNFILLED, FeatureRow, Missing
from conductor_features.tables import TableLayout
from conductor_features.views import PIPELINE_BUILDS, TENANT_LOAD, View

VIEWS = (TENANT_LOAD, PIPELINE_BUILDS)
LAYOUT = TableLayout(VIEWS)
REASONS = (ABSENT, UNFILLED)
TIMES = st.integers(-(2**62), 2**62)


@st.composite
def stored_values(draw: st.DrawFn, view: View) -> tuple[bytes, bytes | None]:
    """A view's key and what may stand under it: its value, nothing, another's, a cut or a changed one."""
    key = entity_key(view.key, ("acme", str(draw(st.integers(0, 3)))))
    other = entity_key(view.key, ("other",))
    view = draw(st.sampled_from([view, view, *VIEWS]))
    bits = draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(view.fields), max_size=len(view.fields)))
    value = encode(key, FeatureRow(draw(TIMES), draw(TIMES), np.array(bits, np.uint64).view(np.float64)))
    match draw(st.sampled_from(["whole", "whole", "none", "cut", "flipped", "another"])):
        case "none":
            return key, None
        case "cut":
            return key, value[: draw(st.integers(0, len(value) - 1))]
        case "flipped":
            at = draw(st.integers(0, len(value) - 1))
            return key, value[:at] + bytes([value[at] ^ draw(st.integers(1, 255))]) + value[at + 1 :]
        case "another":
            return other, value
    return key, value


LINES = st.tuples(*map(stored_values, VIEWS))


@given(st.lists(LINES, max_size=8))
def test_a_table_holds_what_decoding_gives(lines: list[tuple[tuple[bytes, bytes | None], ...]]) -> None:
    keys = [key for line in lines for key, _ in line]
    stored = {key: value for line in lines for key, value in line}
    table = LAYOUT.table(keys, stored, REASONS)
    assert len(table) == len(lines)
    for number, line in enumerate(lines):
        for view_at, (key, _) in enumerate(line):
            value, view, found = stored[key], VIEWS[view_at], table.row(number, view_at)
            try:
                expected = None if value is None else decode(key, value, len(view.fields))
            except CorruptValue as error:
                assert found == Missing(f"corrupt: {error}")
                continue
            if expected is None:
                assert found is REASONS[view_at]
                assert table.event_time_us[number, view_at] == 0
                continue
            assert isinstance(found, FeatureRow)
            assert (found.event_time_us, found.written_time_us) == (expected.event_time_us, expected.written_time_us)
            assert found.values.tobytes() == expected.values.tobytes()
            assert table.event_time_us[number, view_at] == expected.event_time_us


@given(st.lists(LINES, min_size=2, max_size=6), st.data())
def test_some_lines_are_those_lines(lines: list[tuple[tuple[bytes, bytes | None], ...]], data: st.DataObject) -> None:
    keys = [key for line in lines for key, _ in line]
    table = LAYOUT.table(keys, {key: value for line in lines for key, value in line}, REASONS)
    some = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=8))
    taken = table.take(some)
    assert len(taken) == len(some)
    for at, number in enumerate(some):
        for view_at in range(len(VIEWS)):
            mine, its = taken.row(at, view_at), table.row(number, view_at)
            if isinstance(its, FeatureRow):
                assert isinstance(mine, FeatureRow)
                assert mine.values.tobytes() == its.values.tobytes()
            else:
                assert mine == its


def test_an_outage_is_a_table_without_rows() -> None:
    table = LAYOUT.without_rows(2, Missing("unavailable"))
    assert len(table) == 2
    assert {table.row(line, view) for line in range(2) for view in range(2)} == {Missing("unavailable")}
    assert np.isnan(table.words[:, LAYOUT.field_word(1, 0)]).all()
