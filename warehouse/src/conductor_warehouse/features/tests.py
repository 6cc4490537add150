"""Views of tests: each test's history, each path's changes, and how tests fail when paths change.

See ``conductor_features.views.tests`` for what each field means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from conductor_features.views import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.entity_facts import read_facts, seed_rows
from conductor_warehouse.features.folds import State, blend, fold
from conductor_warehouse.features.moments import Moments

_SECOND = 1_000_000
RECENT_HALF_LIFE = 14 * 86_400.0
"""Of the weights in ``test_history``, in seconds."""
Facts = Mapping[str, NDArray[np.float64]]


class TestHistory:
    """The past of one test."""

    view, reach, seeded = TEST_HISTORY, None, True

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        owner, at, table = read_facts(
            connection,
            self.view,
            moments,
            seeds,
            "CASE outcome WHEN 'SKIPPED' THEN 2 WHEN 'PASSED' THEN 0 ELSE 1 END AS one,"
            " coalesce(duration, 'NaN') AS other",
            """
            CROSS JOIN LATERAL (
              SELECT completed_time, run_id, result_number, outcome, duration FROM test_results
              WHERE (test_results.tenant_id, test_results.repository, test_results.test_id)
                  = (entity.tenant_id, entity.repository, entity.test_id)
                AND completed_time > entity.after_time AND completed_time <= entity.last_time
              OFFSET 0
            ) AS result
            ORDER BY number, completed_time, run_id, result_number
            """,
        )
        facts = {"at": at / _SECOND, "outcome": table[:, 0], "duration": table[:, 1]}
        return fold(self.view, moments, seed_rows(self.view, moments, seeds, COUNTS), owner, at, facts, after_result)


COUNTS = (
    "run_count",
    "failure_count",
    "skip_count",
    "flip_count",
    "rerun_flip_count",
    "recent_run_weight",
    "recent_failure_weight",
)
"""Fields of a test's history that are 0 before its first result."""


def after_result(state: State, fact: Facts) -> State:
    """Histories of tests after one more result of each: ``at`` in epoch s, ``outcome`` 0 passed, 1 failed, 2 skipped,
    ``duration`` in s or NaN."""
    executed, failed = fact["outcome"] != 2, (fact["outcome"] == 1).astype(np.float64)
    known = ~np.isnan(state["last_failed"])
    flipped = (known & (state["last_failed"] != failed)).astype(np.float64)
    took = executed & ~np.isnan(fact["duration"])
    at = fact["at"]
    same_run = at == state["last_run_time"]
    kept = np.where(executed, np.exp2(-np.nan_to_num(at - state["last_run_time"]) / RECENT_HALF_LIFE), 1.0)

    def where_executed(name: str, value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(executed, value, state[name])

    return {
        "run_count": state["run_count"] + executed,
        "failure_count": state["failure_count"] + failed,
        "skip_count": state["skip_count"] + ~executed,
        "flip_count": where_executed("flip_count", state["flip_count"] + flipped),
        "last_failed": where_executed("last_failed", failed),
        "failure_rate_2": where_executed("failure_rate_2", blend(state["failure_rate_2"], failed, 0.5)),
        "failure_rate_10": where_executed("failure_rate_10", blend(state["failure_rate_10"], failed, 0.9)),
        "failure_rate_50": where_executed("failure_rate_50", blend(state["failure_rate_50"], failed, 0.98)),
        "flip_rate_20": np.where(executed & known, blend(state["flip_rate_20"], flipped, 0.95), state["flip_rate_20"]),
        "rerun_flip_count": where_executed("rerun_flip_count", state["rerun_flip_count"] + flipped * same_run),
        "recent_run_weight": state["recent_run_weight"] * kept + executed,
        "recent_failure_weight": state["recent_failure_weight"] * kept + failed,
        "runs_since_failure": where_executed(
            "runs_since_failure", np.where(failed == 1, 0.0, state["runs_since_failure"] + 1)
        ),
        "last_duration": np.where(took, fact["duration"], state["last_duration"]),
        "mean_duration_10": np.where(
            took, blend(state["mean_duration_10"], fact["duration"], 0.9), state["mean_duration_10"]
        ),
        "first_run_time": np.where(np.isnan(state["first_run_time"]), at, state["first_run_time"]),
        "last_run_time": where_executed("last_run_time", at),
        "last_failure_time": np.where(failed == 1, at, state["last_failure_time"]),
        "last_flip_time": np.where(executed & (flipped == 1), at, state["last_flip_time"]),
    }


class PathChanges:
    """What test runs made of changes of one path."""

    view, reach, seeded = PATH_CHANGES, None, True

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        owner, at, table = read_facts(
            connection,
            self.view,
            moments,
            seeds,
            "failed_count AS one, 0 AS other",
            """
            JOIN LATERAL (
              SELECT completed_time, run_id, failed_count FROM test_runs AS run
              WHERE run.tenant_id = entity.tenant_id AND run.repository = entity.repository
                AND completed_time > entity.after_time AND completed_time <= entity.last_time
                AND entity.path = ANY (changed_paths)
              OFFSET 0
            ) AS run ON true
            ORDER BY number, completed_time, run_id
            """,
        )
        facts = {"at": at / _SECOND, "failed": (table[:, 0] > 0).astype(np.float64)}
        counts = ("change_count", "failed_run_count")
        return fold(self.view, moments, seed_rows(self.view, moments, seeds, counts), owner, at, facts, after_change)


def after_change(state: State, fact: Facts) -> State:
    """Histories of paths after one more run of each: ``at`` in epoch s, ``failed`` 1 if a test failed."""
    failed, at = fact["failed"], fact["at"]
    return {
        "change_count": state["change_count"] + 1,
        "failed_run_count": state["failed_run_count"] + failed,
        "failed_run_rate_10": blend(state["failed_run_rate_10"], failed, 0.9),
        "last_change_time": at,
        "last_failed_run_time": np.where(failed == 1, at, state["last_failed_run_time"]),
    }


class TestPathAffinity:
    """How often one test failed when one path had changed."""

    view, reach, seeded = TEST_PATH_AFFINITY, None, True

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        owner, at, _ = read_facts(
            connection,
            self.view,
            moments,
            seeds,
            "1 AS one, 0 AS other",
            """
            JOIN LATERAL (
              SELECT DISTINCT result.completed_time, result.run_id
              FROM test_results AS result
              JOIN test_runs AS run USING (tenant_id, run_id)
              WHERE (result.tenant_id, result.repository, result.test_id)
                  = (entity.tenant_id, entity.repository, entity.test_id)
                AND result.completed_time > entity.after_time AND result.completed_time <= entity.last_time
                AND result.outcome IN ('FAILED', 'ERROR') AND entity.path = ANY (run.changed_paths)
            ) AS failure ON true
            ORDER BY number, completed_time, run_id
            """,
        )
        seed = seed_rows(self.view, moments, seeds, ("failure_count",))
        return fold(self.view, moments, seed, owner, at, {"at": at / _SECOND}, after_failure)


def after_failure(state: State, fact: Facts) -> State:
    """Histories of pairs after one more run in which the test failed and the path had changed."""
    return {"failure_count": state["failure_count"] + 1, "last_failure_time": fact["at"]}
