"""Training frames: what would have been known of each build at the moment it was queued.

Point-in-time joins are Feast's; the request columns come from the stored context, by the code that the server runs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_features.request_columns.builds import REQUEST_COLUMN_NAMES, request_values
from conductor_features.views import View

_NO_ONLINE_STORE = "redis://127.0.0.1:1/0"
"""Training reads the log; the online store is never connected to."""

STRICTLY_BEFORE = timedelta(microseconds=1)
"""Features of a build queued at Q are those of rows before Q, so that its own events are never among them."""

_BUILDS = """
SELECT tenant_id, build_id, repository, pipeline, branch, queued_time, completed_time,
  passed_duration AS duration, context
FROM builds
WHERE passed_duration > 0 AND context IS NOT NULL AND queued_time < %(until)s AND completed_time < %(until)s
  AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
ORDER BY queued_time, tenant_id COLLATE "C", build_id COLLATE "C"
"""


@dataclass(frozen=True)
class BuildFrame:
    """Passed builds in queued order, each with the features of its moment.

    ``rows`` has a row per build: tenant_id, build_id, repository, pipeline, branch, queued_time, completed_time,
    duration (s), a column ``{view key}__{field}`` per feature and a column per request column.
    """

    rows: pd.DataFrame
    until: datetime
    lake_version: str = ""
    """Digest of the version of the lake that it was read from; empty where it came from the warehouse."""
    as_served: bool = False
    """Whether features are as they were known at the time, instead of as corrected since."""

    def digest(self) -> str:
        """SHA-256 of the rows' content."""
        digest = hashlib.sha256()
        for name in sorted(self.rows.columns):
            column = self.rows[name]
            digest.update(name.encode())
            if column.dtype == object:
                digest.update("\0".join(map(str, column)).encode())
            elif isinstance(column.dtype, pd.DatetimeTZDtype):
                digest.update(epoch_seconds(column).tobytes())
            else:
                digest.update(column.to_numpy(dtype=np.float64).tobytes())
        return digest.hexdigest()

    def tenant(self, tenant_id: str) -> BuildFrame:
        """The rows of one tenant."""
        return replace(self, rows=self.rows[self.rows.tenant_id == tenant_id].reset_index(drop=True))

    @property
    def tenants(self) -> list[str]:
        """Tenants, sorted."""
        return sorted(self.rows.tenant_id.unique())


def feature_column(view: View, field: str) -> str:
    """Column of a feature in a frame."""
    return f"{view.key}__{field}"


def build_frame(
    database_url: str,
    views: Sequence[View],
    until: datetime,
    tenant_id: str | None = None,
    *,
    as_served: bool = False,
) -> BuildFrame:
    """Passed builds of a tenant (or of all) that were known before ``until``, with the features of ``views``.

    Features are as late events have corrected them since, or, ``as_served``, as they were known at the time.
    Raises psycopg.Error when the warehouse does not answer.
    """
    with psycopg.connect(database_url) as connection:
        cursor = connection.execute(_BUILDS, {"until": until, "tenant": tenant_id})
        names = [column.name for column in cursor.description or ()]
        rows = pd.DataFrame(cursor.fetchall(), columns=names)
    if rows.empty:
        return BuildFrame(rows, until)
    rows = with_request_columns(rows)
    features = _point_in_time(database_url, views, rows, as_served=as_served)
    return BuildFrame(pd.concat([rows, features], axis=1), until, as_served=as_served)


def with_request_columns(builds: pd.DataFrame) -> pd.DataFrame:
    """Builds with the request columns in place of their stored context."""
    contexts = (BuildContext.FromString(bytes(context)) for context in builds["context"])
    columns = pd.DataFrame(request_values(contexts), columns=list(REQUEST_COLUMN_NAMES), index=builds.index)
    return pd.concat([builds.drop(columns="context"), columns], axis=1)


def _point_in_time(database_url: str, views: Sequence[View], rows: pd.DataFrame, *, as_served: bool) -> pd.DataFrame:
    from conductor_features import feast_store  # noqa: PLC0415 - importing Feast takes seconds

    entities = rows[["tenant_id", "build_id", "repository", "pipeline", "branch"]].copy()
    entities["event_timestamp"] = rows.queued_time - STRICTLY_BEFORE
    references = [f"{view.key}:{field}" for view in views for field in view.field_names]
    # A registry of this job's own: jobs run side by side, and Feast's file registry has no lock.
    with tempfile.TemporaryDirectory() as folder:
        store = feast_store.open_store(database_url, _NO_ONLINE_STORE, Path(folder) / "registry.db")
        feast_store.apply(store)
        joined = store.get_historical_features(
            entity_df=entities,
            features=references,
            full_feature_names=True,
            filter_by_created_timestamp=as_served,
        ).to_df()
    # Feast gives the rows in an order of its own.
    ordered = joined.set_index(["tenant_id", "build_id"]).loc[pd.MultiIndex.from_frame(rows[["tenant_id", "build_id"]])]
    columns = [feature_column(view, field) for view in views for field in view.field_names]
    return ordered[columns].astype(np.float64).set_axis(rows.index)


def epoch_seconds(times: pd.Series) -> NDArray[np.float64]:
    """Moments as seconds since the epoch, of shape [rows]."""
    microseconds = times.dt.tz_convert("UTC").astype("datetime64[us, UTC]").astype("int64")
    seconds: NDArray[np.float64] = microseconds.to_numpy(dtype=np.float64) / 1e6
    return seconds
