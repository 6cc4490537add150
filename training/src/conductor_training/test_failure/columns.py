"""Input columns of the model: where each comes from, and what the graph makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from conductor_features.views import TEST_HISTORY, View
from conductor_training.columns import Column


def _test(field: str, default: float | None = None) -> Column:
    # A test that never ran has no row.
    return Column(f"test.{field}", TEST_HISTORY, field, nullable=True, default=default)


def _since(field: str) -> Column:
    return Column(f"test.seconds_since_{field.removesuffix('_time')}", TEST_HISTORY, field, elapsed=True, nullable=True)


RUN_COUNT, FAILURE_COUNT = _test("run_count", 0.0), _test("failure_count", 0.0)
RECENT_RUNS, RECENT_FAILURES = _test("recent_run_weight", 0.0), _test("recent_failure_weight", 0.0)
LATEST = _test("failure_rate_2")
LAST_FAILED = _test("last_failed")
SINCE_RUN, SINCE_FAILURE = _since("last_run_time"), _since("last_failure_time")

RISING: Sequence[Column] = (LATEST, LAST_FAILED, _test("failure_rate_10"), _test("failure_rate_50"))
"""The more of it, the likelier a failure: the trees are held to that."""
FALLING: Sequence[Column] = (_test("runs_since_failure"), SINCE_FAILURE)
"""The other way round."""
FREE: Sequence[Column] = (
    RUN_COUNT,
    SINCE_RUN,
    _test("flip_count", 0.0),
    _test("rerun_flip_count", 0.0),
    _test("flip_rate_20"),
    _test("mean_duration_10"),
    _since("first_run_time"),
    _since("last_flip_time"),
    # Of the request and of what it touches: see ``conductor_training.test_failure.frame``.
    Column("is_test_changed_v2"),
    Column("changed_path_count"),
    Column("path_failed_run_rate"),
    Column("path_failure_share"),
)

TRANSFERABLE: Sequence[Column] = tuple(
    column
    for column in (*RISING, *FREE)
    if column.name.rpartition(".")[2]
    in {
        "failure_rate_2",
        "last_failed",
        "failure_rate_10",
        "failure_rate_50",
        "flip_rate_20",
        "is_test_changed_v2",
        "path_failed_run_rate",
        "path_failure_share",
    }
)
"""Shares and flags, which mean the same everywhere; how many, how long ago and how long a test takes do not."""

COLUMNS: Sequence[Column] = tuple(
    dict.fromkeys((*RISING, *FALLING, *FREE, FAILURE_COUNT, RECENT_RUNS, RECENT_FAILURES))
)
"""The graph's input, in order."""

INDEX = {column.name: index for index, column in enumerate(COLUMNS)}
"""Position of each column."""

REQUEST_COLUMN_NAMES: Sequence[str] = tuple(column.name for column in COLUMNS if column.view is None)

VIEWS: Sequence[View] = tuple(dict.fromkeys(column.view for column in COLUMNS if column.view is not None))
"""Views whose rows are the graph's input."""
