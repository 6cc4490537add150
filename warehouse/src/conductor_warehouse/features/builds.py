"""Views of builds: the latest builds of a pipeline, a branch, a repository; the tenant's load.

See ``conductor_features.views.builds`` for what each field means.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

from conductor_features.views import BRANCH_BUILDS, PIPELINE_BUILDS, REPOSITORY_BUILDS, TENANT_LOAD, View
from conductor_warehouse.features import windows
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.moments import Moments, count_until
from conductor_warehouse.staging import stage

_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_DECAY = [0.8**age for age in range(50)]
_ERROR_BASE = 7
"""Builds before a build whose median is its base."""


@dataclass(frozen=True)
class _LatestBuilds:
    """Builds of an entity by their completion."""

    facts: windows.History
    completed: NDArray[np.int64]
    value: NDArray[np.float64]
    until: NDArray[np.int64]
    """For each moment, how many of its entity's builds are not beyond it."""

    def window(self, moments: Moments, size: int, values: NDArray[np.float64] | None = None) -> Rows:
        """Values of the latest ``size`` builds of each moment, newest first."""
        return windows.latest(self.value if values is None else values, self.facts, moments, self.until, size)

    def latest_time(self, moments: Moments) -> NDArray[np.float64]:
        """Completion of each moment's latest build in seconds since 1970; NaN where there is none."""
        return self.window(moments, 1, self.completed.astype(np.float64))[:, 0] / _SECOND


def _passed(connection: Connection[Any], view: View, moments: Moments, size: int) -> _LatestBuilds:
    """Durations of passed builds: all that the latest ``size`` of each moment are among."""
    return _read(connection, view, moments, size, "passed_duration", "passed_duration IS NOT NULL")


def _ended(connection: Connection[Any], view: View, moments: Moments, size: int) -> _LatestBuilds:
    """Whether ended builds failed (1) or not (0), likewise."""
    failed = "(outcome IN ('FAILURE', 'TIMED_OUT'))::integer::double precision"
    return _read(connection, view, moments, size, failed, "true")


def _read(
    connection: Connection[Any], view: View, moments: Moments, size: int, value: str, condition: str
) -> _LatestBuilds:
    entities = stage(connection, f"moments_{view.key}", moments.batch(view))
    statement = sql.SQL(
        """
        SELECT number, array_send(array_agg(completed_time)), array_send(array_agg(value))
        FROM (
          SELECT number, completed_time, value
          FROM {entities} AS entity
          CROSS JOIN LATERAL (
            SELECT completed_time, build_id, {value} AS value
            FROM completed_builds
            WHERE {keys} AND {condition} AND completed_time <= entity.last_time
            ORDER BY completed_time DESC, build_id DESC
            LIMIT %s + (
              SELECT count(*) FROM completed_builds
              WHERE {keys} AND {condition} AND completed_time > entity.first_time AND completed_time <= entity.last_time
            )
          ) AS build
          ORDER BY number, completed_time, build_id
        ) AS latest
        GROUP BY number
        """
    ).format(
        entities=entities,
        value=sql.SQL(value),
        condition=sql.SQL(condition),
        keys=sql.SQL(" AND ").join(
            sql.SQL("completed_builds.{key} = entity.{key}").format(key=sql.Identifier(key)) for key in view.entity
        ),
    )
    found = connection.execute(statement, (size,), binary=True).fetchall()
    facts = windows.history(found, len(moments.entities), (int, float))
    completed, values = facts.columns
    return _LatestBuilds(facts, completed, values, count_until(windows.owners(facts), completed, moments, moments.at))


class PipelineBuilds:
    """Recent builds of one pipeline."""

    view, reach, seeded = PIPELINE_BUILDS, None, False

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        passed = _passed(connection, self.view, moments, 500)
        ended = _ended(connection, self.view, moments, 20)
        durations = passed.window(moments, 500)
        failures = ended.window(moments, 20)
        errors = passed.window(moments, 50, _errors(passed))
        # The earliest build that an error can be told of has three before it.
        errors[:, :][np.arange(50) >= windows.count(durations)[:, None] - 3] = np.nan
        error_count = windows.count(errors)
        enough = error_count >= 10
        widened = np.minimum(1.0, 0.9 * (1 + 1.0 / np.maximum(error_count, 1.0)))
        return np.column_stack(
            [
                durations[:, 0],
                windows.mean(durations[:, :7]),
                *(windows.quantile(durations[:, :size], 0.5) for size in (5, 7, 15, 30, 500)),
                np.exp(windows.mean(np.log(durations[:, :50]), _DECAY)),
                windows.quantile(durations[:, :30], 0.1),
                windows.quantile(durations[:, :30], 0.9),
                np.where(enough, windows.quantile(errors, 0.5), np.nan),
                np.where(enough, windows.quantile(errors, widened), np.nan),
                windows.count(durations),
                windows.mean(failures),
                failures[:, 0],
                ended.latest_time(moments),
            ]
        )


def _errors(passed: _LatestBuilds) -> NDArray[np.float64]:
    """|ln(duration / median of the up to 7 builds before it)| of each build."""
    index = np.arange(len(passed.value))[:, None] - 1 - np.arange(_ERROR_BASE)
    inside = index >= np.repeat(passed.facts.begins, passed.facts.counts)[:, None]
    before = np.where(inside, passed.value[np.where(inside, index, 0)], np.nan) if len(index) else np.empty((0, 7))
    return np.abs(np.log(passed.value / windows.quantile(before, 0.5)))


class BranchBuilds:
    """Recent builds of one branch in one pipeline."""

    view, reach, seeded = BRANCH_BUILDS, None, False

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        passed = _passed(connection, self.view, moments, 50)
        durations = passed.window(moments, 50)
        return np.column_stack(
            [
                durations[:, 0],
                windows.quantile(durations[:, :7], 0.5),
                windows.count(durations),
                passed.latest_time(moments),
            ]
        )


class RepositoryBuilds:
    """Recent builds of one repository, whatever their pipeline."""

    view, reach, seeded = REPOSITORY_BUILDS, None, False

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        durations = _passed(connection, self.view, moments, 30).window(moments, 30)
        failures = _ended(connection, self.view, moments, 20).window(moments, 20)
        return np.column_stack(
            [
                windows.quantile(durations, 0.5),
                windows.quantile(durations, 0.05),
                windows.quantile(durations, 0.95),
                windows.count(durations),
                windows.mean(failures),
            ]
        )


class TenantLoad:
    """How busy the tenant's CI is."""

    view, reach, seeded = TENANT_LOAD, timedelta(hours=6), False

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        entities = stage(connection, f"moments_{self.view.key}", moments.batch(self.view))
        statement = sql.SQL(
            """
            SELECT number,
              array_send(array_agg(queued_time)), array_send(array_agg(coalesce(completed_time, 'infinity')))
            FROM (
              SELECT number, queued_time, completed_time
              FROM {} AS entity
              CROSS JOIN LATERAL (
                SELECT queued_time, completed_time FROM builds
                WHERE builds.tenant_id = entity.tenant_id
                  AND queued_time > entity.first_time - interval '6 hours' AND queued_time <= entity.last_time
                OFFSET 0  -- a look-up for each entity: the planner would join all of the tenant's builds
              ) AS build
              ORDER BY number, queued_time
            ) AS recent
            GROUP BY number
            """
        ).format(entities)
        facts = windows.history(
            connection.execute(statement, binary=True).fetchall(), len(moments.entities), (int, int)
        )
        queued, completed = facts.columns
        # A build is taken for running until it has completed, for six hours at most.
        ended = np.minimum(completed, queued + 6 * _HOUR)
        begun = count_until(windows.owners(facts), queued, moments, moments.at)
        begun_before = count_until(windows.owners(facts), queued, moments, moments.at - _HOUR)
        over = count_until(windows.owners(facts), ended, moments, moments.at)
        return np.column_stack([begun - begun_before, begun - over]).astype(np.float64)
