"""View of quality metrics. See ``conductor_features.views.quality`` for what each field means."""

from __future__ import annotations

from typing import Any

import numpy as np
from psycopg import Connection, sql

from conductor_features.views import QUALITY_METRIC
from conductor_warehouse.features import windows
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.moments import Moments, count_until
from conductor_warehouse.features.trends import slope
from conductor_warehouse.staging import stage

_SECOND = 1_000_000
_DAY = 86_400
_SIZE = 120


class QualityMetric:
    """Recent values of one quality metric of one branch."""

    view, reach, seeded = QUALITY_METRIC, None, False

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment. Shape (moments, fields)."""
        staged = stage(connection, f"moments_{self.view.key}", moments.batch(self.view))
        own = (
            "score.tenant_id = entity.tenant_id AND score.repository = entity.repository"
            " AND score.branch = entity.branch AND score.metric = entity.metric"
        )
        statement = sql.SQL(
            """
            SELECT number, array_send(array_agg(evaluated_time)), array_send(array_agg(value))
            FROM (
              SELECT number, evaluated_time, value
              FROM {staged} AS entity
              CROSS JOIN LATERAL (
                SELECT evaluated_time, evaluation_id, value FROM quality_scores AS score
                WHERE {own} AND evaluated_time <= entity.last_time
                ORDER BY evaluated_time DESC, evaluation_id DESC
                LIMIT %s + (
                  SELECT count(*) FROM quality_scores AS score
                  WHERE {own} AND evaluated_time > entity.first_time AND evaluated_time <= entity.last_time
                )
              ) AS score
              ORDER BY number, evaluated_time, evaluation_id
            ) AS latest
            GROUP BY number
            """
        ).format(staged=staged, own=sql.SQL(own))
        found = connection.execute(statement, (_SIZE,), binary=True).fetchall()
        facts = windows.history(found, len(moments.entities), (int, float))
        evaluated, value = facts.columns
        until = count_until(windows.owners(facts), evaluated, moments, moments.at)
        values = windows.latest(value, facts, moments, until, _SIZE)
        times = windows.latest(evaluated / _SECOND, facts, moments, until, _SIZE)
        recent = values[:, :30]
        same_weekday = (times // _DAY) % 7 == ((moments.at // _SECOND // _DAY) % 7)[:, None]
        season = windows.mean(np.where(same_weekday, values, np.nan)) - windows.mean(values)
        return np.column_stack(
            [
                values[:, 0],
                windows.quantile(recent, 0.5),
                slope(recent, times[:, :30]),
                windows.quantile(recent, 0.75) - windows.quantile(recent, 0.25),
                season,
                windows.count(values),
                times[:, 0],
            ]
        )
