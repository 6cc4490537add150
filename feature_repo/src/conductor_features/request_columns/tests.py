"""Columns of a change and the tests that may run for it, computed for all tests at once.

Training computes them from past runs and the server from requests, by this code; NaN is missing. A manifest names
columns, so a column whose definition changes gets a new name, and the old one is computed for the models that name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conductor_features.request_columns.column import Column
from conductor_features.request_columns.files_of_tests import ids_in_files
from conductor_features.views import PATH_CHANGES

REQUEST_COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "is_test_changed": Column("The test's id is the path of a changed file", "1"),
        "is_test_changed_v2": Column("The test is in a changed file, going by its id", "1"),
        "changed_path_count": Column("Changed files", "1"),
        "path_failed_run_rate": Column(
            "Of the changed paths that had changed before, the highest failed_run_rate_10 (view path_changes)", "1"
        ),
        "path_failure_share": Column(
            "Of the same, the highest share of a path's changes with which the test failed; 0 where it never did", "1"
        ),
    }
)
"""Request columns by name, in order; the first is for models of before the second. All are NaN where no change is
known, and the last two where nothing is known of any changed path."""

REQUEST_COLUMN_NAMES: tuple[str, ...] = tuple(REQUEST_COLUMNS)
"""Names in the order of :func:`request_values`."""

_CHANGES, _RATE = (PATH_CHANGES.field_index[name] for name in ("change_count", "failed_run_rate_10"))
_TEST_IS_PATH, _TEST_CHANGED, _PATH_COUNT, _FAILED_RUN_RATE, _FAILURE_SHARE = range(len(REQUEST_COLUMN_NAMES))


class PathFailures(NamedTuple):
    """Tests that failed when one path had changed; view ``test_path_affinity``."""

    tests: NDArray[np.intp]
    """Positions of tests, each once."""
    counts: NDArray[np.float64]
    """In how many runs each failed; NaN where that can't be told."""


def request_values(
    index: Mapping[str, int],
    changed_paths: Sequence[str],
    path_rows: NDArray[np.float64],
    failures: Sequence[PathFailures],
    repository: str,
) -> NDArray[np.float64]:
    """The request columns of all tests, ``[tests, columns]``.

    Args:
        index: position of each test, from 0 on.
        changed_paths: each once; none where it is not known what changes.
        path_rows: their rows of ``path_changes``, ``[paths, fields]``; NaN for one without a row, or with one too old.
        failures: of each path, the tests that failed with it.
        repository: its name; Go's tests begin with a host's and this.
    """
    values = np.full((len(index), len(REQUEST_COLUMN_NAMES)), np.nan)
    if not changed_paths:
        return values
    values[:, [_TEST_IS_PATH, _TEST_CHANGED]] = 0.0
    values[[index[path] for path in changed_paths if path in index], _TEST_IS_PATH] = 1.0
    values[[index[test_id] for test_id in ids_in_files(changed_paths, index, repository)], _TEST_CHANGED] = 1.0
    values[:, _PATH_COUNT] = len(changed_paths)
    rates = path_rows[:, _RATE]
    if np.isnan(rates).all():
        return values
    values[:, _FAILED_RUN_RATE] = np.nanmax(rates)
    share = np.zeros(len(index))
    for changes, (tests, counts) in zip(path_rows[:, _CHANGES].tolist(), failures, strict=True):
        if changes > 0:  # not so for NaN
            share[tests] = np.fmax(share[tests], counts / changes)
    values[:, _FAILURE_SHARE] = share
    return values
