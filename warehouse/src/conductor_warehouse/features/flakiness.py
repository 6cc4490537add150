"""View of flaky tests; see ``conductor_features.views.flakiness`` and the rules in ``conductor_features.flakiness``.

Most results are of tests that pass. So the fold does not go through results but through *marks*: runs in which the test
failed, quarantines, and the moments that rows are wanted of. What passed between two marks is a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from conductor_features import flakiness as rules
from conductor_features.views import TEST_FLAKINESS
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.entity_facts import read_facts, seed_rows
from conductor_warehouse.features.folds import State, fold
from conductor_warehouse.features.moments import Moments

Integers = NDArray[np.int64]
Facts = dict[str, NDArray[np.float64]]

_SECOND = 1_000_000
PASSED, FAILED, QUARANTINED, RELEASED = range(4)
COUNTS = ("run_count", "runs_since_failure", "flip_rate", "mixed_run_count", "activation_count")
"""Fields that are 0 before anything happened."""


class TestFlakiness:
    """Whether one test is flaky or quarantined, and since when."""

    view, reach, seeded = TEST_FLAKINESS, None, True

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        owner, at, table = read_facts(
            connection,
            self.view,
            moments,
            seeds,
            "kind AS one, 0 AS other",
            """
            CROSS JOIN LATERAL (
              SELECT completed_time, run_id, result_number, CASE outcome WHEN 'PASSED' THEN 0 ELSE 1 END AS kind
              FROM test_results
              WHERE (test_results.tenant_id, test_results.repository, test_results.test_id)
                  = (entity.tenant_id, entity.repository, entity.test_id)
                AND completed_time > entity.after_time AND completed_time <= entity.last_time AND outcome <> 'SKIPPED'
              UNION ALL
              SELECT changed_time, '', 0, CASE WHEN quarantined THEN 2 ELSE 3 END
              FROM test_quarantines AS changed
              WHERE (changed.tenant_id, changed.repository, changed.test_id)
                  = (entity.tenant_id, entity.repository, entity.test_id)
                AND changed_time > entity.after_time AND changed_time <= entity.last_time
              OFFSET 0
            ) AS told
            ORDER BY number, completed_time, run_id, result_number
            """,
        )
        seed = seed_rows(self.view, moments, seeds, COUNTS)
        owner, at, facts = marks(owner, at, table[:, 0].astype(np.int64), moments.entity, moments.at)
        return fold(self.view, moments, seed, owner, at, facts, after_mark)


def marks(
    owner: Integers, at: Integers, kind: Integers, moment_owner: Integers, moment_at: Integers
) -> tuple[Integers, Integers, Facts]:
    """What happened as marks: each mark's entity, its time, and what lies between it and the mark before.

    Args:
        owner: each fact's entity.
        at: each fact's time; facts are in the order of (entity, time, place in the run).
        kind: PASSED, FAILED, QUARANTINED or RELEASED.
        moment_owner: the entity of each moment that a row is wanted of.
        moment_at: its time.
    """
    telling = kind != PASSED
    mark = _each_once(np.append(owner[telling], moment_owner), np.append(at[telling], moment_at))
    is_result = kind <= FAILED
    result = _first_at_or_after(mark, owner[is_result], at[is_result])
    # What passed after an entity's last moment is of no mark.
    known = (result < len(mark)) & (mark[np.minimum(result, len(mark) - 1), 0] == owner[is_result])
    result, result_at, failed = result[known], at[is_result][known], kind[is_result][known] == FAILED
    count = len(mark)
    place = np.arange(len(result))
    begin = np.searchsorted(result, np.arange(count), side="left")
    end = np.searchsorted(result, np.arange(count), side="right")
    first, last = end.copy(), begin - 1
    np.minimum.at(first, result[failed], place[failed])
    np.maximum.at(last, result[failed], place[failed])
    passed_then = np.bincount(result[~failed & (result_at == mark[result, 1])], minlength=count)
    change = np.zeros(count)
    change[_first_at_or_after(mark, owner[~is_result], at[~is_result])] = kind[~is_result]
    facts: Mapping[str, NDArray[Any]] = {
        "at": mark[:, 1] / _SECOND,
        "results": end - begin,
        "passed_before": first - begin,
        "failed": last >= begin,
        "passed_after": np.where(last >= begin, end - 1 - last, 0),
        "mixed": (last >= begin) & (passed_then > 0),
        "change": change,
    }
    return mark[:, 0], mark[:, 1], {name: values.astype(np.float64) for name, values in facts.items()}


def _each_once(owner: Integers, at: Integers) -> Integers:
    """Pairs of entity and time, sorted. Shape (pairs, 2)."""
    pairs = np.column_stack([owner, at])[np.lexsort((at, owner))]
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    once: Integers = pairs[fresh]
    return once


def _first_at_or_after(mark: Integers, owner: Integers, at: Integers) -> Integers:
    """For each pair of entity and time the position of the first mark that is not before it; marks are sorted."""
    is_mark = np.repeat([True, False], [len(mark), len(owner)])
    order = np.lexsort((is_mark, np.append(mark[:, 1], at), np.append(mark[:, 0], owner)))
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(is_mark[order])
    return found[len(mark) :]


def after_mark(state: State, fact: Mapping[str, NDArray[np.float64]]) -> State:
    """States of tests after one more mark of each: see :func:`marks`."""
    at, failed = fact["at"], fact["failed"] == 1
    passed = state["runs_since_failure"] + fact["passed_before"]
    run_count = state["run_count"] + fact["results"]
    mixed = fact["mixed"] == 1
    since_failure = at - state["last_failure_time"]
    was_active = rules.is_open(state["last_failure_time"], state["last_active_failure_time"])
    still = failed & was_active & ~rules.is_over(passed, since_failure)
    flip_rate = np.where(failed, _flip_rate(state, passed, mixed), state["flip_rate"])
    begins = failed & ~still
    begins &= rules.becomes_active(
        mixed, at - state["last_mixed_time"], state["activation_count"], run_count, flip_rate
    )
    quarantined = rules.is_quarantined(state["quarantined_time"], state["released_time"])
    return {
        "run_count": run_count,
        "runs_since_failure": np.where(failed, fact["passed_after"], passed),
        "flip_rate": flip_rate,
        "mixed_run_count": state["mixed_run_count"] + mixed,
        "last_mixed_time": np.where(mixed, at, state["last_mixed_time"]),
        "last_failure_time": np.where(failed, at, state["last_failure_time"]),
        "activation_count": state["activation_count"] + begins,
        "first_active_time": np.where(begins & (state["activation_count"] == 0), at, state["first_active_time"]),
        "active_time": np.where(begins, at, state["active_time"]),
        "last_active_failure_time": np.where(still | begins, at, state["last_active_failure_time"]),
        "quarantined_time": np.where((fact["change"] == QUARANTINED) & ~quarantined, at, state["quarantined_time"]),
        "released_time": np.where((fact["change"] == RELEASED) & quarantined, at, state["released_time"]),
    }


def _flip_rate(state: State, passed: NDArray[np.float64], mixed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The rate after one more failed run: first what passed since the failure before, then the run itself.

    It moves at failures only: so it does not depend on where else rows were wanted.
    """
    factor, rate = rules.FLIP_RATE_FACTOR, state["flip_rate"]
    has_passed = passed > 0
    mended = (factor * rate + (1 - factor)) * factor ** np.maximum(passed - 1, 0)
    rate = np.where(has_passed & ~np.isnan(state["last_failure_time"]), mended, rate)
    return factor * rate + (1 - factor) * (has_passed | mixed)
