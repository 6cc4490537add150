"""Training frames from the lake: equal to those from the warehouse, without asking it.

The latest row as of each moment is found by Polars' as-of join; see ``frame`` for what a frame is.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from conductor_features.views import View
from conductor_training.frame import STRICTLY_BEFORE, BuildFrame, feature_column, with_request_columns
from conductor_warehouse.lake import Lake, LakeVersion

_BUILD_COLUMNS = (
    "tenant_id",
    "build_id",
    "repository",
    "pipeline",
    "branch",
    "queued_time",
    "completed_time",
    "passed_duration",
    "context",
)
_ROW, _ASKED, _VISIBLE = "__row", "__asked_time", "__visible_time"


def build_frame_from_lake(
    lake: Lake,
    version: LakeVersion,
    views: Sequence[View],
    until: datetime,
    tenant_id: str | None = None,
    *,
    as_served: bool = False,
) -> BuildFrame:
    """As :func:`conductor_training.frame.build_frame`, from one version of a lake.

    Raises:
        LakeCorrupt: a file is absent or damaged.
        LakeUnavailable: the storage does not answer.
    """
    tenants = version.tenants if tenant_id is None else [tenant_id]
    parts = [_tenant_rows(lake, version, views, until, tenant, as_served=as_served) for tenant in tenants]
    rows = pl.concat([part for part in parts if part is not None]) if any(p is not None for p in parts) else None
    if rows is None:
        return BuildFrame(pd.DataFrame(), until, version.digest, as_served)
    builds = rows.sort("queued_time", "tenant_id", "build_id")
    features = [feature_column(view, field) for view in views for field in view.field_names]
    told = _to_pandas(builds.drop(features)).rename(columns={"passed_duration": "duration"})
    values = pd.DataFrame(builds.select(features).to_numpy(), columns=features)
    return BuildFrame(pd.concat([with_request_columns(told), values], axis=1), until, version.digest, as_served)


def _tenant_rows(
    lake: Lake, version: LakeVersion, views: Sequence[View], until: datetime, tenant_id: str, *, as_served: bool
) -> pl.DataFrame | None:
    read = read_rows(lake, version, "builds", tenant_id, _BUILD_COLUMNS, until)
    if read is None:
        return None
    builds = read.filter(
        pl.col("passed_duration") > 0,
        pl.col("context").is_not_null(),
        pl.col("queued_time") < until,
        pl.col("completed_time") < until,
    )
    if builds.is_empty():
        return None
    builds = builds.with_columns((pl.col("queued_time") - STRICTLY_BEFORE).alias(_ASKED)).with_row_index(_ROW)
    found = [builds]
    for view in views:
        found.append(_as_of(lake, version, view, builds, as_served=as_served))
    return pl.concat(found, how="horizontal").drop(_ROW, _ASKED)


def _as_of(lake: Lake, version: LakeVersion, view: View, asked: pl.DataFrame, *, as_served: bool) -> pl.DataFrame:
    """The view's fields as of each asked moment, in the order of ``asked``; NaN is missing."""
    names = [feature_column(view, field) for field in view.field_names]
    tenant_id, last = asked["tenant_id"][0], asked[_ASKED].max()
    assert isinstance(last, datetime)  # noqa: S101 - of a column of times that is not empty
    columns = (*view.entity, "event_timestamp", "created", "log_id", *view.field_names)
    rows = read_rows(lake, version, view.log_table, tenant_id, columns, last)
    if rows is None:
        return pl.DataFrame({name: np.full(len(asked), np.nan) for name in names})
    log = _visible(rows, view, as_served=as_served)
    joined = asked.select(_ROW, _ASKED, *view.entity).sort(_ASKED)
    joined = joined.join_asof(
        log, left_on=_ASKED, right_on=_VISIBLE, by=list(view.entity), strategy="backward", check_sortedness=False
    ).sort(_ROW)
    too_old = pl.col("event_timestamp") < pl.col(_ASKED) - view.maximum_age
    return joined.select(
        pl.when(too_old).then(None).otherwise(pl.col(field)).cast(pl.Float64).fill_null(float("nan")).alias(name)
        for field, name in zip(view.field_names, names, strict=True)
    )


def _visible(log: pl.DataFrame, view: View, *, as_served: bool) -> pl.DataFrame:
    """Rows with the moment from which each counts, in the order of these moments.

    As corrected a row counts from its event time on. As served it counts from when it was known as well, and not at
    all where a row that is later by event time had been known before it.
    """
    log = log.sort("event_timestamp", "created", "log_id").with_row_index("__rank")
    if not as_served:
        return log.with_columns(pl.col("event_timestamp").alias(_VISIBLE))
    log = log.with_columns(pl.max_horizontal("event_timestamp", "created").alias(_VISIBLE)).sort(_VISIBLE, "__rank")
    return log.filter(pl.col("__rank") == pl.col("__rank").cum_max().over(view.entity))


def read_rows(
    lake: Lake, version: LakeVersion, table: str, tenant_id: str, columns: Sequence[str], last: datetime | None = None
) -> pl.DataFrame | None:
    """Rows of a table and tenant, up to the day of ``last``; None where there are none."""
    last_day = None if last is None else last.astimezone(UTC).date()
    contents = lake.contents(version, table, tenant_id, last_day=last_day)
    if not contents:
        return None
    # Polars reads many small files several times faster than one reader for each.
    sources: list[Any] = [io.BytesIO(content) for content in contents]
    return pl.read_parquet(sources, columns=list(columns))


def _to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """With times and texts as the warehouse's driver gives them."""
    return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
