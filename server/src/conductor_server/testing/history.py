"""What the tests' own past says without a model."""

from __future__ import annotations

import numpy as np

from conductor_server.testing.rows import Array, Mask, Rows

PRIOR_RUNS = 0.5
"""Weight of what tests do on the whole in a test's own rate, in runs."""


def never_ran(history: Rows) -> Mask:
    """Of each test whether no result is known: there is no row, an old one, or one of skipped results only."""
    return ~history.unreadable & ~(history.field("run_count") > 0)


def failure_rates(history: Rows, unknown: float | None = None) -> Array | None:
    """Of each test, the middle of its latest results and of all: what training knows as candidate "history".

    Args:
        history: rows of ``test_history``.
        unknown: how often tests fail of which nothing is known; None means as often as these do on the whole.

    Returns:
        None where no test has a row.
    """
    if not history.usable.any():
        return None
    runs, failures = np.nan_to_num(history.field("run_count")), np.nan_to_num(history.field("failure_count"))
    if unknown is None:
        unknown = float((failures.sum() + 1) / (runs.sum() + 2))
    latest = history.field("failure_rate_2")
    latest = np.where(np.isnan(latest), unknown, latest)
    overall = (failures + PRIOR_RUNS * unknown) / (runs + PRIOR_RUNS)
    middle: Array = np.clip((latest + overall) / 2, 0.0, 1.0)
    return middle
