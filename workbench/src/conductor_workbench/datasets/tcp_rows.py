"""Rows of the files of the studies "tcp": see ``tcp`` for what they become."""

from __future__ import annotations

import csv
import gzip
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

_LONGEST_NAME = 512
_LONGEST = timedelta(days=365)
_FIRST, _LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Other times are of a broken clock, or a placeholder."""
_VERDICTS = {0.0: False, 1.0: True}
_TOUCHED = frozenset(range(1, 6))
"""PyDriller's kinds of change of the test's own file; 6 is unknown: it was not in the change."""


class Layout(Enum):
    """Which family a file is of."""

    RETECS = "RETECS"
    COLEMAN = "Coleman"


@dataclass(frozen=True)
class Execution:
    """One execution of one test."""

    cycle: int
    test: str
    failed: bool
    duration: timedelta | None
    time: datetime | None
    changed: bool


@dataclass(frozen=True)
class _Columns:
    layout: Layout
    cycle: str
    seconds: float
    """Of one unit of ``Duration``."""


_FAMILIES = (_Columns(Layout.RETECS, "Cycle", 0.001), _Columns(Layout.COLEMAN, "BuildId", 1.0))


def read_executions(path: Path) -> Iterator[tuple[Layout, Execution]]:
    """Executions in the file's order. Raises ValueError with file and line."""
    parquet = path.suffix == ".parquet"
    columns: _Columns | None = None
    for line, row in _parquet_rows(path) if parquet else _csv_rows(path):
        columns = columns or _family(path, row)
        try:
            yield columns.layout, _execution(row, columns)
        except ValueError as error:
            raise ValueError(f"{path}:{line}: {error}") from error


def _family(path: Path, row: Mapping[str, Any]) -> _Columns:
    for family in _FAMILIES:
        if {"Name", "Verdict", "Duration", family.cycle} <= set(row):
            return family
    missing = ", ".join(sorted({"Name", "Verdict", "Duration"} - set(row))) or "Cycle or BuildId"
    raise ValueError(f"{path}: not a file of test executions: no column {missing}")


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # one cell holds the whole history of a test
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if ";" in header else ",")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}:{reader.line_num}: not as many cells as the header has")
                yield reader.line_num, row
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as error:
        raise ValueError(f"{path}: can't be read: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa  # noqa: PLC0415 - only for such files
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: can't be read: {error}") from error
    line = 0
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            line += 1
            yield line, row


def _execution(row: Mapping[str, Any], columns: _Columns) -> Execution:
    test = _text(row["Name"])
    if not test or len(test) > _LONGEST_NAME or "\0" in test:
        raise ValueError(f"Name is {test[:40]!r}: 1 to {_LONGEST_NAME} characters are taken")
    verdict = _number(row["Verdict"])
    if verdict not in _VERDICTS:
        raise ValueError(f"Verdict is {_text(row['Verdict'])!r}, not 0 or 1")
    cycle = _number(row[columns.cycle])
    if cycle is None or cycle != int(cycle):
        raise ValueError(f"{columns.cycle} is {_text(row[columns.cycle])!r}, not a whole number")
    return Execution(
        cycle=int(cycle),
        test=test,
        failed=_VERDICTS[verdict],
        duration=_duration(_number(row["Duration"]), columns.seconds),
        time=_time(row.get("LastRun")),
        changed=_number(row.get("ChangeType")) in _TOUCHED,
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value == int(value if math.isfinite(value) else 0):
        value = int(value)
    return str(value).strip()


def _number(value: Any) -> float | None:
    text = _text(value)
    if text in ("True", "False"):
        return float(text == "True")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _duration(value: float | None, seconds: float) -> timedelta | None:
    if value is None or not 0 <= value * seconds <= _LONGEST.total_seconds():
        return None
    return timedelta(seconds=value * seconds)


def _time(value: Any) -> datetime | None:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return time if _FIRST <= (time := time.replace(tzinfo=time.tzinfo or UTC)) < _LAST else None
