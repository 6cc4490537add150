"""Feature views of builds: the pipeline, the branch, the repository and the tenant's load.

"Passed" is outcome SUCCESS with a usable duration; durations are seconds from queueing to completion less waits.
Every field is as of a moment T: only builds completed at or before T count (for load: queued at or before T).
"""

from __future__ import annotations

from datetime import timedelta

from conductor_features.views.base import Field, View

_OWNER = "build-intelligence"
_COMPLETED = ("build.completed.duration", "build.completed.outcome", "build.completed.completed_time")

PIPELINE_BUILDS = View(
    name="pipeline_builds",
    version=1,
    entity=("tenant_id", "repository", "pipeline"),
    fields=(
        Field("last_duration", "Duration of the latest passed build", "s"),
        Field("mean_duration_7", "Mean duration of the latest 7 passed builds", "s"),
        Field("median_duration_7", "Median duration of the latest 7 passed builds", "s"),
        Field("median_duration_30", "Median duration of the latest 30 passed builds", "s"),
        Field("lower_duration_30", "5th percentile of the latest 30 passed builds' durations", "s"),
        Field("upper_duration_30", "95th percentile of the latest 30 passed builds' durations", "s"),
        Field("passed_count", "Passed builds so far, at most 1,000", "1"),
        Field("failure_rate_20", "Share of the latest 20 ended builds that did not pass", "1"),
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
        Field("median_duration_5", "Median duration of the latest 5 passed builds", "s"),
        Field("passed_count", "Passed builds so far, at most 1,000", "1"),
        Field("last_completed_time", "Completion of the latest ended build", "epoch s"),
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
        Field("failure_rate_20", "Share of the latest 20 ended builds that did not pass", "1"),
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
        Field("queued_count_1h", "Builds queued in the hour before", "1"),
        Field("running_count", "Builds queued in the day before and not ended yet", "1"),
    ),
    maximum_age=timedelta(days=1),
    owner=_OWNER,
    description="How busy the tenant's CI is.",
    lineage=("build.queued.context.queued_time", "build.completed.completed_time"),
)
