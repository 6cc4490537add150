"""View of flaky tests; see ``conductor_features.views.flakiness`` and the rules in ``conductor_features.flakiness``.

Most results are of tests that pass. So the fold goes from one failed run to the next, and what lies between is taken
from ``test_history``, which counts all results: to read them once more would cost as much as to take them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

from conductor_features import flakiness as rules
from conductor_features.views import TEST_FLAKINESS, TEST_HISTORY
from conductor_warehouse.features.arrays import numbers
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.entity_facts import seed_rows
from conductor_warehouse.features.folds import State, fold
from conductor_warehouse.features.moments import Integers, Moments
from conductor_warehouse.features.tests import TestHistory
from conductor_warehouse.staging import stage

_SECOND = 1_000_000
FAILED, QUARANTINED, RELEASED = 0.0, 1.0, 2.0
COUNTS = ("results_until_failure", "failed_runs_in_a_row", "mixed_run_count", "activation_count")
"""Fields that are 0 before anything happened."""
_OF_HISTORY = ("run_count", "runs_since_failure", "flip_rate_20")


class TestFlakiness:
    """Whether one test is flaky or quarantined, and since when."""

    view, reach, seeded = TEST_FLAKINESS, None, True

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields). With seeds, the log of ``test_history`` must be right."""
        owner, at, kind, results, mixed, history = self._read(connection, moments, seeds)
        unknown = (kind == FAILED) & (np.isnan(history[:, 0]) | (seeds is None))
        if unknown.any():
            history[unknown] = _from_facts(connection, moments, owner[unknown], at[unknown])
        facts = {
            "at": at / _SECOND,
            "kind": kind,
            "results": results,
            "mixed": mixed,
            **dict(zip(_OF_HISTORY, history.T, strict=True)),
        }
        return fold(self.view, moments, seed_rows(self.view, moments, seeds, COUNTS), owner, at, facts, after_mark)

    def _read(
        self, connection: Connection[Any], moments: Moments, seeds: Seeds | None
    ) -> tuple[Integers, Integers, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Rows]:
        """Failed runs and changes of quarantine after each entity's seed, in their order: the entity's number, the
        time, which of the three, the run's results, whether it was mixed, and what the history says as of then."""
        name = f"moments_{self.view.key}"
        stage(connection, name, moments.batch(self.view, seeds.at if seeds is not None else None))
        row = connection.execute(_reading(name), binary=True).fetchone()
        assert row is not None  # noqa: S101 - an aggregate has one row
        kind, results, mixed, *history = (numbers(values, float) for values in row[2:])
        return (
            numbers(row[0], float).astype(np.int64),
            numbers(row[1], int),
            kind,
            results,
            mixed,
            np.column_stack(history),
        )


@lru_cache(maxsize=8)
def _reading(staged: str) -> bytes:
    statement = sql.SQL(
        """
        SELECT array_send(array_agg(number::double precision)), array_send(array_agg(completed_time)),
          array_send(array_agg(kind::double precision)), array_send(array_agg(results::double precision)),
          array_send(array_agg(mixed::double precision)), {history}
        FROM (
          SELECT entity.number, mark.*, history.* FROM {staged} AS entity
          CROSS JOIN LATERAL (
            SELECT completed_time, 0 AS kind, results, mixed
            FROM (
              SELECT DISTINCT completed_time FROM test_results
              WHERE (test_results.tenant_id, test_results.repository, test_results.test_id)
                  = (entity.tenant_id, entity.repository, entity.test_id)
                AND completed_time > entity.after_time AND completed_time <= entity.last_time
                AND outcome IN ('FAILED', 'ERROR')
            ) AS failed
            CROSS JOIN LATERAL (
              SELECT count(*) AS results, max(CASE outcome WHEN 'PASSED' THEN 1 ELSE 0 END) AS mixed
              FROM test_results AS result
              WHERE (result.tenant_id, result.repository, result.test_id, result.completed_time)
                  = (entity.tenant_id, entity.repository, entity.test_id, failed.completed_time)
                AND outcome <> 'SKIPPED'
            ) AS run
            UNION ALL
            SELECT changed_time, CASE WHEN quarantined THEN 1 ELSE 2 END, 0, 0
            FROM test_quarantines AS changed
            WHERE (changed.tenant_id, changed.repository, changed.test_id)
                = (entity.tenant_id, entity.repository, entity.test_id)
              AND changed_time > entity.after_time AND changed_time <= entity.last_time
            OFFSET 0
          ) AS mark
          LEFT JOIN LATERAL (
            SELECT {fields} FROM {log} AS log
            WHERE (log.tenant_id, log.repository, log.test_id, log.event_timestamp)
                = (entity.tenant_id, entity.repository, entity.test_id, mark.completed_time) AND mark.kind = 0
            ORDER BY created DESC LIMIT 1
          ) AS history ON true
          ORDER BY number, completed_time, kind
        ) AS fact
        """
    ).format(
        history=sql.SQL(", ").join(
            sql.SQL("array_send(array_agg(coalesce({}, 'NaN')))").format(sql.Identifier(name)) for name in _OF_HISTORY
        ),
        fields=sql.SQL(", ").join(map(sql.Identifier, _OF_HISTORY)),
        log=sql.Identifier(TEST_HISTORY.log_table),
        staged=sql.Identifier(f"staged_{staged}"),
    )
    return statement.as_bytes(None)


def _from_facts(connection: Connection[Any], moments: Moments, owner: Integers, at: Integers) -> Rows:
    """What the history says as of failed runs, from the results themselves. Shape (runs, fields)."""
    runs = Moments.ordered(moments.entities, owner, at)
    rows = TestHistory().compute(connection, runs.take(np.arange(len(runs))))
    return rows[:, [TEST_HISTORY.field_index[name] for name in _OF_HISTORY]]


def after_mark(state: State, fact: Mapping[str, NDArray[np.float64]]) -> State:
    """States of tests after one more failed run, quarantine or release of each.

    ``at`` in epoch s; ``kind``; of a failed run: its executed ``results``, whether it was ``mixed``, and ``run_count``,
    ``runs_since_failure`` and ``flip_rate_20`` of the test's history as of then.
    """
    at, failed, mixed = fact["at"], fact["kind"] == FAILED, fact["mixed"] == 1
    passed = fact["run_count"] - fact["results"] - state["results_until_failure"]
    was_active = rules.is_open(state["last_failure_time"], state["last_active_failure_time"])
    still = failed & was_active & ~rules.is_over(passed, at - state["last_failure_time"])
    begins = failed & ~still
    begins &= rules.becomes_active(
        mixed, at - state["last_mixed_time"], state["activation_count"], fact["run_count"], fact["flip_rate_20"]
    )
    quarantined = rules.is_quarantined(state["quarantined_time"], state["released_time"])

    def where(condition: NDArray[np.bool_], value: Any, name: str) -> NDArray[np.float64]:
        return np.where(condition, value, state[name])

    return {
        "results_until_failure": where(failed, fact["run_count"] - fact["runs_since_failure"], "results_until_failure"),
        "failed_runs_in_a_row": where(
            failed, np.where(passed == 0, state["failed_runs_in_a_row"] + 1, 1.0), "failed_runs_in_a_row"
        ),
        "mixed_run_count": state["mixed_run_count"] + mixed,
        "last_mixed_time": where(mixed, at, "last_mixed_time"),
        "last_failure_time": where(failed, at, "last_failure_time"),
        "activation_count": state["activation_count"] + begins,
        "first_active_time": where(begins & (state["activation_count"] == 0), at, "first_active_time"),
        "active_time": where(begins, at, "active_time"),
        "last_active_failure_time": where(still | begins, at, "last_active_failure_time"),
        "quarantined_time": where((fact["kind"] == QUARANTINED) & ~quarantined, at, "quarantined_time"),
        "released_time": where((fact["kind"] == RELEASED) & quarantined, at, "released_time"),
    }
