"""What speaks loudest for each test's failure: rules over columns, in the order in which they count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from conductor_features.changes.impact_graph import FAR
from conductor_server.testing.answers import Reason
from conductor_server.testing.history import never_ran
from conductor_server.testing.rows import Array, Rows

_DAY = 86_400.0
RECENT_SECONDS = 14 * _DAY
RECENT_RUNS = 10
"""A failure counts as recent for so long, or for so many results."""
OFTEN = 0.05
"""Share of the latest fifty results, fading."""
FLAKY_FLIPS = 2
FLAKY_RATE = 0.1
"""A flaky test flipped at least so often on equal code, and in at least this share of its latest results."""


def reasons(
    history: Rows, requested: Mapping[str, Array | float], distance: NDArray[np.uint8] | None, moment_us: int
) -> NDArray[np.int64]:
    """Of each test a :class:`Reason`.

    Args:
        history: rows of ``test_history``.
        requested: request columns.
        distance: how far each test is from the change; None where that is not known.
        moment_us: the question's time, in microseconds since the epoch.
    """
    nothing = np.zeros(len(history), bool)
    changed = np.broadcast_to(requested.get("is_test_changed_v2", np.nan), nothing.shape)
    with_files = np.broadcast_to(requested.get("path_failure_share", np.nan), nothing.shape)
    since_failure = moment_us / 1e6 - history.field("last_failure_time")
    # What is NaN meets no condition.
    rules = {
        Reason.HISTORY_UNREADABLE: history.unreadable,
        Reason.FLAKY: (history.field("rerun_flip_count") >= FLAKY_FLIPS)
        & (history.field("flip_rate_20") >= FLAKY_RATE),
        Reason.FAILED_LAST: history.field("last_failed") == 1,
        Reason.TEST_CHANGED: changed > 0 if distance is None else (changed > 0) | (distance == 0),
        Reason.FAILED_WITH_FILES: with_files > 0,
        Reason.FAILED_RECENTLY: (since_failure <= RECENT_SECONDS)
        | (history.field("runs_since_failure") <= RECENT_RUNS),
        Reason.FAILS_OFTEN: history.field("failure_rate_50") >= OFTEN,
        Reason.NEVER_RAN: never_ran(history),
        Reason.REACHED: nothing if distance is None else distance < FAR,
    }
    return np.select(list(rules.values()), [int(reason) for reason in rules], int(Reason.NONE))
