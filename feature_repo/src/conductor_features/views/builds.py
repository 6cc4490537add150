"""Feature views of builds: the pipeline, the branch, the repository and the tenant's load.

Terms, as of a moment T: a build has *ended* if it completed at or before T; it *passed* if it ended with outcome
SUCCESS and a usable duration (above zero); it *failed* if it ended with FAILURE or TIMED_OUT. "The latest n" are
ordered by (completed_time, build_id). Quantiles interpolate linearly. A field is NaN where there is nothing to compute
it from; counts are then 0.
"""

from __future__ import annotations

from datetime import timedelta

from conductor_features.views.base import Field, View

_OWNER = "build-intelligence"
_COMPLETED = (
    "build.completed.duration",
    "build.completed.outcome",
    "build.completed.completed_time",
)

PIPELINE_BUILDS = View(
    name="pipeline_builds",
    version=1,
    entity=("tenant_id", "repository", "pipeline"),
    fields=(
        Field("last_duration", "Duration of the latest passed build", "s"),
        Field("mean_duration_7", "Mean duration of the latest 7 passed builds", "s"),
        Field("median_duration_5", "Median duration of the latest 5 passed builds", "s"),
        Field("median_duration_7", "Median duration of the latest 7 passed builds", "s"),
        Field("median_duration_15", "Median duration of the latest 15 passed builds", "s"),
        Field("median_duration_30", "Median duration of the latest 30 passed builds", "s"),
        Field("median_duration_500", "Median duration of the latest 500 passed builds", "s"),
        Field(
            "weighted_mean_duration_50",
            "Geometric mean of the latest 50 passed builds' durations, the k-th latest weighted by 0.8^(k-1)",
            "s",
        ),
        Field("lower_duration_30", "10 % quantile of the latest 30 passed builds' durations", "s"),
        Field("upper_duration_30", "90 % quantile of the latest 30 passed builds' durations", "s"),
        Field(
            "typical_error_50",
            "Median of |ln(duration / median of the up to 7 passed builds before it)| over those of the latest 50 "
            "passed builds that have at least 3 before them; at least 10 of them",
            "1",
        ),
        Field("relative_error_50", "Quantile of the same at min(1, 0.9 (1 + 1/n)), n being their number", "1"),
        Field("passed_count", "Passed builds, at most 500", "1"),
        Field("failure_rate_20", "Share of the latest 20 ended builds that failed", "1"),
        Field("last_failed", "1 if the latest ended build failed, else 0", "1"),
        Field("last_completed_time", "Completion of the latest ended build", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner=_OWNER,
    description="Recent builds of one pipeline.",
    lineage=_COMPLETED,
)

BRANCH_BUILDS = View(
    name="branch_builds",
    version=1,
    entity=("tenant_id", "repository", "pipeline", "branch"),
    fields=(
        Field("last_duration", "Duration of the latest passed build", "s"),
        Field("median_duration_7", "Median duration of the latest 7 passed builds", "s"),
        Field("passed_count", "Passed builds, at most 50", "1"),
        Field("last_passed_time", "Completion of the latest passed build", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner=_OWNER,
    description="Recent builds of one branch in one pipeline.",
    lineage=_COMPLETED,
)

REPOSITORY_BUILDS = View(
    name="repository_builds",
    version=1,
    entity=("tenant_id", "repository"),
    fields=(
        Field("median_duration_30", "Median duration of the latest 30 passed builds", "s"),
        Field("lower_duration_30", "5 % quantile of the latest 30 passed builds' durations", "s"),
        Field("upper_duration_30", "95 % quantile of the latest 30 passed builds' durations", "s"),
        Field("passed_count", "Passed builds, at most 30", "1"),
        Field("failure_rate_20", "Share of the latest 20 ended builds that failed", "1"),
    ),
    maximum_age=timedelta(days=365),
    owner=_OWNER,
    description="Recent builds of one repository, whatever their pipeline.",
    lineage=_COMPLETED,
)

TENANT_LOAD = View(
    name="tenant_load",
    version=1,
    entity=("tenant_id",),
    fields=(
        Field("queued_count_1h", "Builds queued after T less one hour and at or before T", "1"),
        Field("running_count", "Builds queued after T less 6 hours and at or before T, and not ended at T", "1"),
    ),
    # The counts are of the moment of the tenant's latest event; an hour later they say nothing.
    maximum_age=timedelta(hours=1),
    owner=_OWNER,
    description="How busy the tenant's CI is.",
    lineage=("build.queued.context.queued_time", "build.completed.completed_time"),
)

BUILD_VIEWS = (PIPELINE_BUILDS, BRANCH_BUILDS, REPOSITORY_BUILDS, TENANT_LOAD)
