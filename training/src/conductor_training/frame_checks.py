"""Checks of training frames: what a model must not be trained on, and what is worth a look.

Schema and ranges hold for each row; completeness and distribution compare the frame's latest rows with those before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

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
_TEXTS = ("tenant_id", "build_id", "repository", "pipeline")
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


def _schema_findings(rows: pd.DataFrame, views: Sequence[View]) -> Iterator[FrameFinding]:
    """Columns, types and ranges."""

    def told(column: str, message: str) -> FrameFinding:
        return FrameFinding("schema", Severity.ERROR, column, message)

    ranges = {"duration": (0.0, LONGEST_SECONDS)} | {
        feature_column(view, field.name): _range(field) for view in views for field in view.fields
    }
    absent = [name for name in (*_TEXTS, *ranges, *REQUEST_COLUMN_NAMES) if name not in rows]
    if absent:
        yield from (told(name, "absent") for name in absent)
        return
    for name in _TEXTS:
        if count := int(sum(not (isinstance(value, str) and value) for value in rows[name])):
            yield told(name, f"{count} rows without a text")
    for name, (lower, upper) in ranges.items():
        if rows[name].dtype != np.float64:
            yield told(name, f"of type {rows[name].dtype}, not float64")
            continue
        values = rows[name].to_numpy()
        wrong = ~np.isnan(values) & ~((values >= lower) & (values <= upper))
        if name == "duration":
            wrong |= np.isnan(values) | (values == 0)
        if wrong.any():
            example = values[wrong][0]
            yield told(name, f"{wrong.sum()} values are not from {lower:g} to {upper:g}, {example:g} for example")
    if rows.duplicated(["tenant_id", "build_id"]).any():
        yield told("build_id", "builds stand twice")
    if not rows["queued_time"].is_monotonic_increasing:
        yield told("queued_time", "the rows are not in its order")
    if (rows["queued_time"] > rows["completed_time"]).any():
        yield told("completed_time", "builds end before they are queued")


def _range(field: Field) -> tuple[float, float]:
    if field.unit == "epoch s":
        return _EARLIEST, _LATEST
    if "rate" in field.name:
        return 0.0, 1.0
    return 0.0, float(np.finfo(np.float64).max)


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
