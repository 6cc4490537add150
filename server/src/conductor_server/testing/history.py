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


UNKNOWN_FLAKY = 0.5
"""Of a failure of which nothing at all is known."""
PRIOR_FAILURES = 2.0
"""Weight of what failures are on the whole in a test's own share, in failures."""


def flaky_rates(history: Rows, unknown: float | None = None) -> Array | None:
    """Of each test, the share of its failures that passed in the same run.

    Args:
        history: rows of ``test_history``.
        unknown: the share among all failures; None where it is not known.

    Returns:
        None where no test has a row.
    """
    if not history.usable.any():
        return None
    failures = np.nan_to_num(history.field("failure_count"))
    passed_again = np.minimum(np.nan_to_num(history.field("rerun_flip_count")), failures)
    prior = PRIOR_FAILURES * (UNKNOWN_FLAKY if unknown is None else unknown)
    rates: Array = (passed_again + prior) / (failures + PRIOR_FAILURES)
    return rates
