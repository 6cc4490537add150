"""Frames with known structure, made without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from conductor_features.request_columns.builds import REQUEST_COLUMN_NAMES
from conductor_training.build_duration.columns import COLUMNS
from conductor_training.frame import BuildFrame, feature_column

START = datetime(2025, 1, 1, tzinfo=UTC)


def make_frame(rows: int = 400, seed: int = 1, tenant: str = "acme", level: float = 300.0) -> BuildFrame:
    """Durations around a level that depends on added lines; features computed from the durations before."""
    generator = np.random.default_rng(seed)
    lines = generator.integers(0, 2000, rows).astype(float)
    durations = level * (1 + 0.3 * (lines > 1000)) * np.exp(generator.normal(0, 0.05, rows))
    queued = [START + timedelta(minutes=20 * i) for i in range(rows)]
    history = {column.name: np.full(rows, np.nan) for column in COLUMNS if column.view is not None}

    def put(name: str, row: int, value: float) -> None:
        history[name][row] = value

    for i in range(rows):
        past = durations[:i]
        put("pipeline.passed_count", i, min(len(past), 500))
        if not len(past):
            continue
        for name, count in (("5", 5), ("7", 7), ("15", 15), ("30", 30), ("500", 500)):
            put(f"pipeline.median_duration_{name}", i, float(np.median(past[-count:])))
        put("pipeline.last_duration", i, past[-1])
        put("pipeline.mean_duration_7", i, past[-7:].mean())
        put("pipeline.weighted_mean_duration_50", i, float(np.exp(np.log(past[-50:]).mean())))
        put("pipeline.lower_duration_30", i, float(np.quantile(past[-30:], 0.1)))
        put("pipeline.upper_duration_30", i, float(np.quantile(past[-30:], 0.9)))
        if len(past) > 12:
            errors = np.abs(np.log(past[-50:] / np.median(past[-50:])))
            put("pipeline.typical_error_50", i, float(np.median(errors)))
            put("pipeline.relative_error_50", i, float(np.quantile(errors, 0.9)))
    frame = pd.DataFrame(
        {
            "tenant_id": tenant,
            "build_id": [f"{i:06d}" for i in range(rows)],
            "repository": f"{tenant}/service",
            "pipeline": "ci",
            "branch": "main",
            "queued_time": pd.to_datetime(queued, utc=True),
            "completed_time": pd.to_datetime(queued, utc=True) + pd.to_timedelta(durations, unit="s"),
            "duration": durations,
        }
    )
    for name in REQUEST_COLUMN_NAMES:
        frame[name] = lines if name == "added_line_count" else generator.integers(0, 5, rows).astype(float)
    for column in COLUMNS:
        if column.view is not None:
            values = history[column.name]
            if column.elapsed:
                values = np.array([time.timestamp() - 60.0 for time in queued])
            frame[feature_column(column.view, column.field)] = values
    return BuildFrame(frame, START + timedelta(minutes=20 * rows))


def join(*frames: BuildFrame) -> BuildFrame:
    """The rows of several frames in queued order."""
    rows = pd.concat([frame.rows for frame in frames]).sort_values(["queued_time", "tenant_id"], kind="stable")
    return BuildFrame(rows.reset_index(drop=True), max(frame.until for frame in frames))
