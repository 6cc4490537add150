"""Training frames from the lake: what was known of each build when it was queued, as the warehouse's own join tells it.

The joins are the ones of ``conductor_features.feast_offline_store`` (of an entity's rows the latest event time counts,
then ``created``, then ``log_id``), done in memory over the files of one version: a frame from a version can be had
again at any time, whatever was ingested, corrected or deleted since.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_features.request_columns.builds import REQUEST_COLUMN_NAMES, request_values
from conductor_features.views import View
from conductor_warehouse.lake.catalogue import Lake
from conductor_warehouse.lake.records import LakeVersion

STRICTLY_BEFORE = timedelta(microseconds=1)
"""Features of a build queued at Q are those of rows before Q, so that its own events are never among them."""

_TIME = "event_timestamp"
_ROW = "__row"
_BUILD = pl.Schema(
    {
        "tenant_id": pl.String(),
        "build_id": pl.String(),
        "repository": pl.String(),
        "pipeline": pl.String(),
        "branch": pl.String(),
        "queued_time": pl.Datetime("us", "UTC"),
        "completed_time": pl.Datetime("us", "UTC"),
        "passed_duration": pl.Float64(),
        "context": pl.Binary(),
    }
)


def build_frame(
    lake: Lake, version: LakeVersion, views: Sequence[View], until: datetime, tenant_id: str | None = None
) -> pl.DataFrame:
    """Passed builds of a tenant (or of all) that were known before ``until``, with the features of ``views``.

    Has the rows, columns and values of ``conductor_training.frame.build_frame``, in queued order: tenant_id, build_id,
    repository, pipeline, branch, queued_time, completed_time, duration (s), the request columns, and a column
    ``{view key}__{field}`` for each feature, NaN where it is unknown.

    Args:
        lake: where the version is.
        version: as :meth:`Lake.version` gives it. It must hold the builds and the views' logs.
        views: whose features.
        until: builds that were queued or ended at this moment or later are left out.
        tenant_id: of this tenant only.

    Raises:
        LakeCorrupt: a file is absent or damaged.
    """
    tenants = version.tenants if tenant_id is None else [tenant_id]
    builds = pl.concat([_builds(lake, version, until, tenant) for tenant in tenants] or [pl.DataFrame(schema=_BUILD)])
    builds = builds.sort("queued_time", "tenant_id", "build_id")
    contexts = builds.drop_in_place("context")
    values = [request_values(BuildContext.FromString(context)) for context in contexts]
    requests = np.array(values, dtype=np.float64).reshape(len(builds), len(REQUEST_COLUMN_NAMES))
    asked = builds.with_columns((pl.col("queued_time") - STRICTLY_BEFORE).alias(_TIME))
    return pl.concat(
        [
            builds.rename({"passed_duration": "duration"}),
            pl.DataFrame(requests, schema=list(REQUEST_COLUMN_NAMES)),
            features_as_of(lake, version, views, asked),
        ],
        how="horizontal",
    )


def features_as_of(lake: Lake, version: LakeVersion, views: Sequence[View], asked: pl.DataFrame) -> pl.DataFrame:
    """Features of each asked row as of its time, that moment included.

    Args:
        lake: where the version is.
        version: holds the views' logs.
        views: whose features.
        asked: has the views' join keys, and ``event_timestamp`` in UTC, of microseconds.

    Returns:
        A row for each asked one, in their order, with a column ``{view key}__{field}`` for each feature: NaN where
        nothing was known, or nothing younger than the view allows.

    Raises:
        LakeCorrupt: a file is absent or damaged.
    """
    # As-of joins want both sides in the order of time; the rows' numbers bring the asked order back.
    ordered = asked.with_row_index(_ROW).sort(_TIME)
    parts = ordered.partition_by("tenant_id", as_dict=True)
    columns = []
    for view in views:
        # One tenant at a time: what is held in memory is a tenant's log, and no row can meet another tenant's.
        found = [_join(lake, version, view, str(tenant), part) for (tenant,), part in parts.items()]
        if found:
            columns.append(pl.concat(found).sort(_ROW).drop(_ROW))
        else:
            columns.append(pl.DataFrame(schema={feature_column(view, name): pl.Float64 for name in view.field_names}))
    return pl.concat(columns, how="horizontal") if columns else pl.DataFrame()


def feature_column(view: View, field: str) -> str:
    """Column of a feature in a frame."""
    return f"{view.key}__{field}"


def _builds(lake: Lake, version: LakeVersion, until: datetime, tenant_id: str) -> pl.DataFrame:
    found = lake.read(version, "builds", tenant_id, list(_BUILD), last_day=until.astimezone(UTC).date())
    if not found.num_rows:
        return pl.DataFrame(schema=_BUILD)
    return pl.DataFrame(found).filter(
        (pl.col("passed_duration") > 0)
        & pl.col("context").is_not_null()
        & (pl.col("queued_time") < until)
        & (pl.col("completed_time") < until)
    )


def _join(lake: Lake, version: LakeVersion, view: View, tenant_id: str, asked: pl.DataFrame) -> pl.DataFrame:
    """Row numbers and features of one tenant's asked rows, which are in the order of time."""
    keys = [key for key in view.entity if key != "tenant_id"]
    names = {name: feature_column(view, name) for name in view.field_names}
    first, last = asked[_TIME][0], asked[_TIME][-1]
    log = lake.read(
        version,
        view.log_table,
        tenant_id,
        [*keys, _TIME, "created", "log_id", *names],
        first_day=(first - view.maximum_age).date(),
        last_day=last.date(),
    )
    numbers = asked.select(_ROW)
    if not log.num_rows:
        return numbers.with_columns(pl.lit(np.nan, pl.Float64).alias(column) for column in names.values())
    # Of rows with equal times the join takes the last.
    rows = pl.DataFrame(log).sort(_TIME, "created", "log_id").select(*keys, pl.col(_TIME).alias("__time"), *names)
    joined = asked.select(_ROW, _TIME, *keys).join_asof(
        rows,
        left_on=_TIME,
        right_on="__time",
        by=keys or None,
        strategy="backward",
        allow_exact_matches=True,
        coalesce=False,
        check_sortedness=False,  # both were sorted here, and within groups polars can't check
    )
    young = pl.col("__time") >= pl.col(_TIME) - view.maximum_age
    return joined.select(
        _ROW, *(pl.when(young).then(name).otherwise(None).fill_null(np.nan).alias(to) for name, to in names.items())
    )
