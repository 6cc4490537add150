"""View of a tenant's usage. See ``conductor_features.views.quality`` for what each field means."""

from __future__ import annotations

from typing import Any

import numpy as np
from psycopg import Connection, sql

from conductor_features.views import TENANT_USAGE
from conductor_warehouse.features import windows
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.moments import Moments, count_until
from conductor_warehouse.features.trends import slope
from conductor_warehouse.staging import stage

_SECOND = 1_000_000
_METRICS = ("build_count", "stored_bytes", "user_count", "webhook_count")
_SIZE = 30


class TenantUsage:
    """How much the tenant uses the platform."""

    view, reach, seeded = TENANT_USAGE, None, False

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        last, slopes, newest = [], [], np.full(len(moments), np.nan)
        for metric in _METRICS:
            values, times = _read(connection, moments, metric)
            last.append(values[:, 0])
            slopes.append(slope(values, times))
            newest = np.fmax(newest, times[:, 0])
        return np.column_stack([*last, *slopes, newest])


def _read(connection: Connection[Any], moments: Moments, metric: str) -> tuple[Rows, Rows]:
    """The latest values of a metric and their times in seconds, newest first. Shape (moments, 30)."""
    view = TENANT_USAGE
    staged = stage(connection, f"moments_{view.key}", moments.batch(view))
    own = "usage.tenant_id = entity.tenant_id AND usage.metric = %(metric)s"
    statement = sql.SQL(
        """
        SELECT number, array_send(array_agg(measured_time)), array_send(array_agg(value))
        FROM (
          SELECT number, measured_time, value
          FROM {staged} AS entity
          CROSS JOIN LATERAL (
            SELECT measured_time, value FROM usage_measurements AS usage
            WHERE {own} AND measured_time <= entity.last_time
            ORDER BY measured_time DESC
            LIMIT %(size)s + (
              SELECT count(*) FROM usage_measurements AS usage
              WHERE {own} AND measured_time > entity.first_time AND measured_time <= entity.last_time
            )
          ) AS usage
          ORDER BY number, measured_time
        ) AS latest
        GROUP BY number
        """
    ).format(staged=staged, own=sql.SQL(own))
    found = connection.execute(statement, {"metric": metric, "size": _SIZE}, binary=True).fetchall()
    facts = windows.history(found, len(moments.entities), (int, float))
    measured, value = facts.columns
    until = count_until(windows.owners(facts), measured, moments, moments.at)
    return (
        windows.latest(value, facts, moments, until, _SIZE),
        windows.latest(measured / _SECOND, facts, moments, until, _SIZE),
    )
