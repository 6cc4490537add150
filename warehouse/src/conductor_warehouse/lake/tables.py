"""What the lake keeps: which tables of the warehouse, by which time, in which order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

LOG_PREFIX = "feature_log_"


@dataclass(frozen=True)
class LakeTable:
    """A table of the lake."""

    name: str
    source: str
    """Table of the warehouse."""
    time: str
    """SQL of the time by which rows belong to a day (UTC); its columns are the source's."""
    order: tuple[str, ...]
    """Columns that put the rows of a day in one order, whatever order they were written in."""

    @property
    def is_log(self) -> bool:
        """Whether rows are only appended, and tell their transaction."""
        return self.name.startswith(LOG_PREFIX)


_TABLES = (
    LakeTable("events", "inbox", "event_time", ("event_time", "source", "event_id")),
    LakeTable("builds", "builds", "queued_time", ("build_id",)),
    LakeTable(
        "completed_builds",
        "completed_builds",
        "completed_time",
        ("repository", "pipeline", "completed_time", "build_id"),
    ),
    LakeTable("test_runs", "test_runs", "completed_time", ("run_id",)),
    LakeTable("test_results", "test_results", "completed_time", ("repository", "test_id", "run_id", "result_number")),
    LakeTable("test_quarantines", "test_quarantines", "changed_time", ("repository", "test_id", "changed_time")),
    LakeTable("quality_evaluations", "quality_evaluations", "evaluated_time", ("evaluation_id",)),
    LakeTable(
        "quality_scores",
        "quality_scores",
        "evaluated_time",
        ("repository", "branch", "metric", "evaluated_time", "evaluation_id"),
    ),
    LakeTable("usage_measurements", "usage_measurements", "measured_time", ("measured_time", "metric")),
    LakeTable("deployments", "deployments", "completed_time", ("deployment_id",)),
    LakeTable("incidents", "incidents", "coalesce(opened_time, resolved_time)", ("incident_id",)),
    LakeTable("change_requests", "change_requests", "merged_time", ("repository", "change_request_id")),
)

_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    # Parquet's own name for the items: what is read back is what was written.
    "text[]": pa.list_(pa.field("element", pa.string())),
    "bytea": pa.binary(),
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double precision": pa.float64(),
    "date": pa.date32(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
}
UNTOLD_COLUMNS = frozenset({"xid"})
"""Columns that mean nothing outside of the database."""


def tables(logs: Mapping[str, Sequence[str]]) -> tuple[LakeTable, ...]:
    """All tables; ``logs``: the entity of each feature view that has a log, by its key."""
    return _TABLES + tuple(
        LakeTable(
            f"{LOG_PREFIX}{view}",
            f"{LOG_PREFIX}{view}",
            "event_timestamp",
            (*(key for key in entity if key != "tenant_id"), "event_timestamp", "created", "log_id"),
        )
        for view, entity in sorted(logs.items())
    )


def arrow_schema(columns: Sequence[tuple[str, str]]) -> pa.Schema:
    """The files' schema for columns of the warehouse, each with its type. Raises ValueError for an unknown type."""
    unknown = sorted({kind for _, kind in columns} - set(_TYPES))
    if unknown:
        raise ValueError(f"the lake has no form for columns of type {', '.join(unknown)}")
    return pa.schema([(name, _TYPES[kind]) for name, kind in columns])


def schema_version(schema: pa.Schema) -> str:
    """The first 16 digits of the digest of names and types."""
    return hashlib.sha256(json.dumps(describe(schema)).encode()).hexdigest()[:16]


def describe(schema: pa.Schema) -> list[list[str]]:
    """Names and types."""
    return [[field.name, str(field.type)] for field in schema]
