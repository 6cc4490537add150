"""Statistics to answer with when the graph can't be run."""

from __future__ import annotations

import pandas as pd

from conductor.model.v1.model_manifest_pb2 import DurationStatistics, FallbackStatistics, PipelineStatistics
from conductor_training.frame import BuildFrame

LATEST = 200
"""Builds of a pipeline that count: older ones say little about now."""
MOST_PIPELINES = 1000
"""The busiest pipelines are told; the rest is covered by the overall statistics."""


def fallback_statistics(frame: BuildFrame) -> FallbackStatistics:
    """By pipeline and over everything, from a frame in queued order that is not empty."""
    by_pipeline = frame.rows.groupby(["tenant_id", "repository", "pipeline"], sort=True)
    busiest = by_pipeline.size().sort_values(ascending=False, kind="stable").index[:MOST_PIPELINES]
    return FallbackStatistics(
        pipelines=[
            PipelineStatistics(
                tenant_id=tenant,
                repository=repository,
                pipeline=pipeline,
                statistics=_statistics(by_pipeline.get_group((tenant, repository, pipeline)).duration.tail(LATEST)),
            )
            for tenant, repository, pipeline in sorted(busiest)
        ],
        overall=_statistics(frame.rows.duration),
    )


def _statistics(durations: pd.Series) -> DurationStatistics:
    lower, median, upper = durations.quantile([0.05, 0.5, 0.95])
    return DurationStatistics(lower_seconds=lower, median_seconds=median, upper_seconds=upper, row_count=len(durations))
