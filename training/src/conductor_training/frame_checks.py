"""Checks of training frames: what a model must not be trained on, and what is worth a look.

Schema and ranges are pandera's; completeness and distribution compare the frame's latest rows with those before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from conductor_features.request_columns.builds import REQUEST_COLUMN_NAMES
from conductor_features.views import Field, View
from conductor_training.frame import BuildFrame, feature_column
from conductor_warehouse.data_quality import histogram

LATEST_SHARE = 0.2
"""Of the rows, by queued time: they are held against the rest."""
LEAST_ROWS = 200
"""Below it, on either side, nothing is compared."""
LONGEST_SECONDS = 30 * 86_400.0
"""No build that passed takes longer."""
COMPLETE, VANISHED = 0.9, 0.05
MAJOR_CHANGE = 0.25
"""Population stability index: the usual bound of a major change."""
_EARLIEST, _LATEST = 946_684_800.0, 4_102_444_800.0
"""The years 2000 and 2100 in epoch seconds."""


class Severity(StrEnum):
    """What a finding does."""

    WARNING = "warning"
    """It is told."""
    ERROR = "error"
    """Nothing is trained."""


@dataclass(frozen=True)
class FrameFinding:
    """A check that a frame did not pass."""

    check: str
    severity: Severity
    column: str
    message: str


class FrameRefused(ValueError):
    """A frame that must not be trained on; the message says why."""

    def __init__(self, findings: Sequence[FrameFinding]) -> None:
        told = "; ".join(f"{one.column}: {one.message}" for one in findings[:5])
        more = f"; and {len(findings) - 5} more" if len(findings) > 5 else ""
        super().__init__(f"the training frame is not fit to train on: {told}{more}")
        self.findings = tuple(findings)


def require_fit(frame: BuildFrame, views: Sequence[View]) -> list[FrameFinding]:
    """The findings that are worth a look. Raises FrameRefused for those of severity error."""
    findings = check_frame(frame, views)
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors:
        raise FrameRefused(errors)
    return findings


def check_frame(frame: BuildFrame, views: Sequence[View]) -> list[FrameFinding]:
    """Everything that is wrong with a frame, errors first."""
    if frame.rows.empty:
        return []
    findings = [*_schema_findings(frame.rows, views)]
    if not findings:
        findings += [*_changes(frame.rows, views)]
    return sorted(findings, key=lambda one: one.severity is Severity.WARNING)


def frame_schema(views: Sequence[View]) -> pa.DataFrameSchema:
    """Columns, types and ranges of a frame with the features of these views."""
    text = pa.Column(str, pa.Check.str_length(min_value=1))
    columns = dict.fromkeys(("tenant_id", "build_id", "repository", "pipeline"), text)
    columns["branch"] = pa.Column(str)
    columns["queued_time"] = columns["completed_time"] = pa.Column("datetime64[us, UTC]", coerce=True)
    columns["duration"] = pa.Column(float, pa.Check.in_range(0, LONGEST_SECONDS, include_min=False))
    for view in views:
        for field in view.fields:
            columns[feature_column(view, field.name)] = pa.Column(float, _range(field), nullable=True)
    columns |= {name: pa.Column(float, nullable=True) for name in REQUEST_COLUMN_NAMES}
    return pa.DataFrameSchema(
        columns,
        unique=["tenant_id", "build_id"],
        checks=[
            pa.Check(lambda rows: rows["queued_time"].is_monotonic_increasing, name="in the order of queued_time"),
            pa.Check(lambda rows: rows["queued_time"] <= rows["completed_time"], name="queued before completed"),
        ],
    )


def _range(field: Field) -> pa.Check:
    if field.unit == "epoch s":
        return pa.Check.in_range(_EARLIEST, _LATEST)
    if "rate" in field.name:
        return pa.Check.in_range(0, 1)
    return pa.Check.in_range(0, np.finfo(np.float64).max)


def _schema_findings(rows: pd.DataFrame, views: Sequence[View]) -> Iterator[FrameFinding]:
    try:
        frame_schema(views).validate(rows.reset_index(drop=True), lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        for (column, check), group in cases.groupby(["column", "check"], dropna=False, sort=True):
            example = group["failure_case"].iloc[0]
            name = str(column) if isinstance(column, str) else "frame"
            if check == "column_in_dataframe":
                name, example = str(example), "absent"
            yield FrameFinding("schema", Severity.ERROR, name, f"{check}: {len(group)} cases, {example!r} for example")


def _changes(rows: pd.DataFrame, views: Sequence[View]) -> Iterator[FrameFinding]:
    """The latest rows against those before."""
    cut = int(len(rows) * (1 - LATEST_SHARE))
    before, after = rows.iloc[:cut], rows.iloc[cut:]
    if min(len(before), len(after)) < LEAST_ROWS:
        return
    features = [feature_column(view, field) for view in views for field in view.field_names]
    for name in ("duration", *features):
        one, other = before[name].notna().mean(), after[name].notna().mean()
        if one >= COMPLETE and other <= VANISHED:
            yield FrameFinding(
                "completeness", Severity.ERROR, name, f"told in {other:.0%} of the latest rows, in {one:.0%} before"
            )
            continue
        if name.endswith("_time"):
            continue  # moments move on
        index = histogram.population_stability_index(
            *(histogram.of(part[name].dropna().to_numpy(dtype=np.float64)) for part in (before, after))
        )
        if index > MAJOR_CHANGE:
            yield FrameFinding(
                "distribution", Severity.WARNING, name, f"stability index {index:.2f} of the latest rows against before"
            )
