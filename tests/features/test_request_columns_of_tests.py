"""Request columns of tests: computed for all at once, they are what the plain definition says, bit for bit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conductor_features.request_columns.tests import (
    REQUEST_COLUMN_NAMES,
    REQUEST_COLUMNS,
    PathFailures,
    request_values,
)
from conductor_features.views import PATH_CHANGES

NAN = math.nan
NAMES = [f"n{number}" for number in range(8)]
"""Of tests and of paths: some tests are paths."""
NOTHING = PathFailures(np.empty(0, np.intp), np.empty(0))
CHANGE_COUNT, RATE = (PATH_CHANGES.field_index[name] for name in ("change_count", "failed_run_rate_10"))


def plain(
    tests: Sequence[str], paths: Sequence[str], rows: NDArray[np.float64], failures: Mapping[str, Mapping[str, int]]
) -> list[list[float]]:
    """The definition, a test and a path at a time."""
    known = [rate for rate in rows[:, RATE].tolist() if not math.isnan(rate)]
    found = []
    for test in tests:
        share = 0.0
        for path, count in zip(paths, rows[:, CHANGE_COUNT], strict=True):
            if test in failures[path] and count > 0:
                share = max(share, failures[path][test] / count)
        is_path = float(test in paths)  # which here is all that its id tells
        values = [is_path, is_path, float(len(paths)), max(known, default=NAN), share if known else NAN]
        found.append(values if paths else [NAN] * 5)
    return found


@given(data=st.data())
def test_all_at_once_is_one_by_one(data: st.DataObject) -> None:
    tests = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
    paths = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    numbers = st.one_of(st.just(NAN), st.integers(0, 7).map(float))
    rates = st.one_of(st.just(NAN), st.floats(0.0, 1.0))
    rows = np.full((len(paths), len(PATH_CHANGES.fields)), NAN)
    for row in rows:
        row[CHANGE_COUNT], row[RATE] = data.draw(numbers), data.draw(rates)
    counts = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9))
    failures = {path: data.draw(counts) for path in paths}
    index = {test: place for place, test in enumerate(tests)}
    of_paths = []
    for path in paths:
        known = {index[test]: count for test, count in failures[path].items() if test in index}
        of_paths.append(PathFailures(np.array(list(known), np.intp), np.array(list(known.values()), float)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = request_values(index, paths, rows, of_paths, "acme/shop")
    expected = np.array(plain(tests, paths, rows, failures), float).reshape(-1, 5)
    assert values.shape == (len(tests), len(REQUEST_COLUMNS))
    np.testing.assert_array_equal(values.view(np.int64) if values.size else values, _bits(expected))


def _bits(values: NDArray[np.float64]) -> NDArray[Any]:
    return values.view(np.int64) if values.size else values


def test_a_count_that_cannot_be_told_takes_nothing_away() -> None:
    rows = np.zeros((2, len(PATH_CHANGES.fields)))
    rows[:, CHANGE_COUNT], rows[:, RATE] = 4.0, [0.25, NAN]
    both = PathFailures(np.array([0, 1]), np.array([1.0, NAN]))
    values = request_values(
        {"a": 0, "b": 1, "c": 2}, ["p", "c"], rows, [both, PathFailures(np.array([0]), np.array([NAN]))], "acme/shop"
    )
    assert dict(zip(REQUEST_COLUMN_NAMES, values.T.tolist(), strict=True)) == {
        "is_test_changed": [0.0, 0.0, 1.0],
        "is_test_changed_v2": [0.0, 0.0, 1.0],
        "changed_path_count": [2.0, 2.0, 2.0],
        "path_failed_run_rate": [0.25, 0.25, 0.25],
        "path_failure_share": [0.25, 0.0, 0.0],
    }


def test_models_of_before_are_told_what_they_were_trained_on() -> None:
    index = {"tests/a.py": 0, "tests/a.py::test_it": 1, "tests/b.py::test_it": 2}
    values = request_values(index, ["tests/a.py"], np.full((1, len(PATH_CHANGES.fields)), NAN), [NOTHING], "acme/shop")
    told = dict(zip(REQUEST_COLUMN_NAMES, values.T.tolist(), strict=True))
    assert told["is_test_changed"] == [1.0, 0.0, 0.0]
    assert told["is_test_changed_v2"] == [1.0, 1.0, 0.0]
