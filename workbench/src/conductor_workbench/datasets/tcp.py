"""Studies of test prioritisation ("tcp"): executions by CI cycle to ``test.completed`` events, one for each cycle.

Two families of files are read, told apart by their columns, plain or gzipped, CSV (semicolons or commas) or Parquet:

- RETECS (Spieker et al., ISSTA 2017: iofrol, paintcontrol, gsdtsr): ``Cycle``; durations in milliseconds.
- Coleman (Prado Lima and Vergilio, TSE 2020: ``features-engineered``, also ``-contextual``): ``BuildId``; in seconds.

``Name`` becomes the test, ``Verdict`` its outcome (1 failed, 0 passed) and ``Duration`` the result's duration. All of
them are of the execution itself, so they are in its result and nowhere else. A test whose own file was touched
(``ChangeType`` 1 to 5, of PyDriller) makes a changed path, named as the test. The rest is left out: ``LastResults``,
``TcAge``, ``CalcPrio`` and ``UserPref_*`` follow from earlier rows or from rankings, and ``NumRan``, ``NumErrors`` say
the verdict again.

A cycle begins at the earliest and ends at the latest ``LastRun`` of its rows (in these files the moment of the
execution itself), but begins a millisecond after the end of the cycle before at the earliest, so that cycles keep their
order. Where no row has a time, cycle number n of the file begins n days after 2000-01-01.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome, TestResult
from conductor_workbench.datasets.tcp_rows import Execution, read_executions
from conductor_workbench.events_file import Event

NAME = "tcp"
_STEP = timedelta(milliseconds=1)
_WITHOUT_TIMES = datetime(2000, 1, 1, tzinfo=UTC)
_MOST_PATHS = 1000
_GENERIC = re.compile(r"features-engineered(-contextual)?$")
_SUFFIXES = re.compile(r"(\.csv|\.parquet|\.gz)+$")


class Report:
    """What became of the rows: counts by name, in the order in which they first came up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, what: str, count: int = 1) -> None:
        """Count some."""
        if count:
            self.counts[what] += count


@dataclass
class _Cycle:
    """One cycle as its rows tell of it."""

    results: list[TestResult] = field(default_factory=list)
    changed: dict[str, None] = field(default_factory=dict)
    times: tuple[datetime, datetime] | None = None

    def add(self, row: Execution) -> None:
        result = TestResult(
            test_id=row.test,
            outcome=TestOutcome.TEST_OUTCOME_FAILED if row.failed else TestOutcome.TEST_OUTCOME_PASSED,
        )
        if row.duration is not None:
            result.duration.FromTimedelta(row.duration)
        self.results.append(result)
        if row.changed:
            self.changed[row.test] = None
        if row.time is not None:
            first, last = self.times or (row.time, row.time)
            self.times = min(first, row.time), max(last, row.time)


def convert(paths: Iterable[Path], report: Report) -> Iterator[Event]:
    """Events of files, a file's in the order of its cycles.

    Raises ValueError, with file and line, for a row whose test, verdict or cycle can't be read, for a file of something
    else, and for two files of one project.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        project = project_of(path)
        if project in seen:
            raise ValueError(f"{path}: the runs of {project} are in {seen[project]} as well: convert one of them")
        seen[project] = path
        yield from _events(path, project, report)


def project_of(path: Path) -> str:
    """``owner/name`` from ``owner@name`` in the file's or folder's name; else the file's name."""
    stem = _SUFFIXES.sub("", path.name)
    name = stem.partition("__")[0] if "__" in stem else stem
    if _GENERIC.fullmatch(name):
        name = path.resolve().parent.name
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", name).strip("-").replace("@", "/", 1) or "project"


def _events(path: Path, project: str, report: Report) -> Iterator[Event]:
    cycles: dict[int, _Cycle] = {}
    for layout, row in read_executions(path):
        report.add(f"rows ({layout.value})")
        report.add("rows whose duration can't be told", row.duration is None)
        report.add("rows whose time can't be told", row.time is None)
        cycles.setdefault(row.cycle, _Cycle()).add(row)
    if not cycles:
        raise ValueError(f"{path}: no rows")
    timed = any(cycle.times for cycle in cycles.values())
    report.add("files without times: a day for each cycle", not timed)
    free = None
    for place, (number, cycle) in enumerate(sorted(cycles.items())):
        earliest, latest = cycle.times or (free or _WITHOUT_TIMES,) * 2
        if not timed:
            earliest = latest = _WITHOUT_TIMES + timedelta(days=place)
        started = max(earliest, free) if free else earliest
        completed = max(latest, started)
        report.add("cycles that begin later than their rows say, to keep their order", timed and started > earliest)
        report.add("changed paths beyond a thousand, left out", max(len(cycle.changed) - _MOST_PATHS, 0))
        report.add("events test.completed")
        yield _event(project, number, cycle, started, completed)
        free = completed + _STEP


def _event(project: str, number: int, cycle: _Cycle, started: datetime, completed: datetime) -> Event:
    run = f"{project.rpartition('/')[2]}-{number}"
    data = TestCompleted(
        run_id=run,
        repository=project,
        pipeline="tests",
        changed_paths=list(cycle.changed)[:_MOST_PATHS],
        results=cycle.results,
    )
    data.started_time.FromDatetime(started)
    data.completed_time.FromDatetime(completed)
    return Event(
        time=completed,
        type="test.completed",
        id=f"{run}/completed",
        source=f"/datasets/{NAME}/{project}",
        tenant_id=project.partition("/")[0].lower(),
        subject=run,
        data=data,
    )
