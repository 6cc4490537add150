"""Feature views of quality metrics and of a tenant's usage.

"The latest n" are ordered by (time, evaluation_id). A field is NaN where there is nothing to compute it from.
"""

from __future__ import annotations

from datetime import timedelta

from conductor_features.views.base import Field, View

QUALITY_METRIC = View(
    name="quality_metric",
    version=1,
    entity=("tenant_id", "repository", "branch", "metric"),
    fields=(
        Field("last_value", "Latest value", "1"),
        Field("level_30", "Median of the latest 30 values", "1"),
        Field(
            "slope_30",
            "Least-squares slope of the latest 30 values over time; NaN with fewer than 3 or at one moment",
            "1/day",
        ),
        Field("spread_30", "Difference of the 75 % and 25 % quantiles of the latest 30 values", "1"),
        Field(
            "season_120",
            "Mean of those of the latest 120 values that are of the moment's weekday (UTC), less the mean of all 120",
            "1",
        ),
        Field("value_count", "Values, at most 120", "1"),
        Field("last_time", "Time of the latest value", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner="quality-intelligence",
    description="Recent values of one quality metric of one branch.",
    lineage=(
        "quality_gate.evaluated.evaluated_time",
        "quality_gate.evaluated.scores",
        "quality_gate.evaluated.coverage_ratio",
        "quality_gate.evaluated.issues",
    ),
)

_USAGE_METRICS = {"build_count": "builds", "stored_bytes": "bytes", "user_count": "users", "webhook_count": "webhooks"}

TENANT_USAGE = View(
    name="tenant_usage",
    version=1,
    entity=("tenant_id",),
    fields=(
        *(Field(f"last_{metric}", f"Latest measured {what}", "1") for metric, what in _USAGE_METRICS.items()),
        *(
            Field(f"{metric}_slope_30", f"Least-squares slope of the latest 30 measured {what} over time", "1/day")
            for metric, what in _USAGE_METRICS.items()
        ),
        Field("last_time", "Time of the latest measurement", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner="resource-intelligence",
    description="How much the tenant uses the platform.",
    lineage=(
        "usage.updated.measured_time",
        *(f"usage.updated.{metric}" for metric in _USAGE_METRICS),
    ),
)
