"""Input columns of the model: where each comes from, and what the graph makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from conductor_features.views import BRANCH_BUILDS, PIPELINE_BUILDS, TENANT_LOAD, View
from conductor_training.columns import Column


def _pipeline(field: str, *, required: bool = False) -> Column:
    return Column(f"pipeline.{field}", PIPELINE_BUILDS, field, required=required)


def _branch(field: str, default: float | None = None) -> Column:
    # A branch's first build has no row.
    return Column(f"branch.{field}", BRANCH_BUILDS, field, nullable=True, default=default)


def _load(field: str) -> Column:
    # A tenant's first build within the hour has no recent row.
    return Column(f"tenant.{field}", TENANT_LOAD, field, nullable=True)


MEDIAN_5 = _pipeline("median_duration_5", required=True)
MEDIAN_7 = _pipeline("median_duration_7", required=True)
MEDIAN_15 = _pipeline("median_duration_15", required=True)
PASSED_COUNT = _pipeline("passed_count", required=True)
TYPICAL_ERROR = _pipeline("typical_error_50")
SPREAD = _pipeline("relative_error_50")

LAST = _pipeline("last_duration")
MEAN_7 = _pipeline("mean_duration_7")
MEDIAN_500 = _pipeline("median_duration_500")

RATIOS: Sequence[Column] = (
    LAST,
    MEAN_7,
    MEDIAN_5,
    MEDIAN_15,
    _pipeline("median_duration_30"),
    _pipeline("weighted_mean_duration_50"),
    _pipeline("lower_duration_30"),
    _pipeline("upper_duration_30"),
    _branch("last_duration"),
    _branch("median_duration_7"),
)
"""What the trees see as the logarithm of its ratio to the base, so that what is learned holds at any level."""

PLAIN: Sequence[Column] = (
    SPREAD,
    _pipeline("failure_rate_20"),
    _pipeline("last_failed"),
    Column("pipeline.seconds_since_last_completed", PIPELINE_BUILDS, "last_completed_time", elapsed=True),
    _load("queued_count_1h"),
    _load("running_count"),
    _branch("passed_count", default=0.0),
    Column("branch.seconds_since_last_passed", BRANCH_BUILDS, "last_passed_time", elapsed=True, nullable=True),
    *(
        Column(name)
        for name in (
            "queued_hour",
            "queued_weekday",
            "is_push",
            "is_main_branch",
            "is_bot_actor",
            "modified_file_count",
            "added_line_count",
            "deleted_line_count",
            "source_churn_line_count",
            "touched_file_commit_count",
            "code_extension_count",
            "web_extension_count",
            "json_extension_count",
            "yaml_extension_count",
            "toml_extension_count",
            "lock_extension_count",
            "build_extension_count",
            "docs_extension_count",
            "asset_extension_count",
            "extension_count",
        )
    ),
)
"""What the trees see as it is."""

COLUMNS: Sequence[Column] = tuple(
    dict.fromkeys((MEDIAN_5, MEDIAN_7, MEDIAN_15, PASSED_COUNT, TYPICAL_ERROR, MEDIAN_500, *RATIOS, *PLAIN))
)
"""The graph's input, in order."""

INDEX = {column.name: index for index, column in enumerate(COLUMNS)}
"""Position of each column."""

VIEWS: Sequence[View] = tuple(dict.fromkeys(column.view for column in COLUMNS if column.view is not None))
"""Views that the model reads."""
