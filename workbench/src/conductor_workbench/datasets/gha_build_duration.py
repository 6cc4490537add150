"""The study "gha-build-duration": raw files of GitHub Actions workflow runs to events.

Columns that are known only after a run (conclusion, jobs, tests, ``updated_at``, what was merged later, comments) go
into ``build.completed`` or nowhere; the rest goes into ``build.queued``. ``gh_is_pr``, ``gh_pull_req_number`` and
``gh_description_complexity`` are left out too: they were looked up when the data were collected, and are set exactly
where the change was merged later.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from conductor.build.v1.build_context_pb2 import BuildContext, BuildTrigger, ChangeSet, RepositoryState
from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor_workbench.datasets import waits
from conductor_workbench.events_file import Event

NAME = "gha-build-duration"

_TRIGGERS = {
    "push": BuildTrigger.BUILD_TRIGGER_PUSH,
    "pull_request": BuildTrigger.BUILD_TRIGGER_PULL_REQUEST,
    "pull_request_target": BuildTrigger.BUILD_TRIGGER_PULL_REQUEST,
    "schedule": BuildTrigger.BUILD_TRIGGER_SCHEDULE,
    "workflow_dispatch": BuildTrigger.BUILD_TRIGGER_MANUAL,
}
_OUTCOMES = {
    "success": BuildOutcome.BUILD_OUTCOME_SUCCESS,
    "failure": BuildOutcome.BUILD_OUTCOME_FAILURE,
    "cancelled": BuildOutcome.BUILD_OUTCOME_CANCELLED,
    "timed_out": BuildOutcome.BUILD_OUTCOME_TIMED_OUT,
}
_CHANGE_COUNTS = {
    "added_file_count": "gh_files_added",
    "modified_file_count": "gh_files_modified",
    "deleted_file_count": "gh_files_deleted",
    "added_line_count": "gh_lines_added",
    "deleted_line_count": "gh_lines_deleted",
    "source_file_count": "gh_src_files",
    "doc_file_count": "gh_doc_files",
    "other_file_count": "gh_other_files",
    "added_test_count": "gh_tests_added",
    "deleted_test_count": "gh_tests_deleted",
    "source_churn_line_count": "gh_src_churn",
    "test_churn_line_count": "gh_test_churn",
    "touched_file_commit_count": "gh_commits_on_files_touched",
}
_CHANGE_FLAGS = {"dockerfile_changed": "dockerfile_changed", "compose_file_changed": "docker_compose_changed"}
_STATE_COUNTS = {
    "source_line_count": "gh_sloc",
    "commit_count": "git_commits",
    "committer_count": "git_num_committers",
    "recent_committer_count": "gh_team_size_last_3_month",
    "dependency_count": "dependencies_count",
    "pipeline_definition_size": "workflow_size",
}

Row = Mapping[str, str]


class Report:
    """What became of the rows: counts by name, in the order in which they first came up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.waiting_seconds = 0.0

    def add(self, what: str) -> None:
        """Count one."""
        self.counts[what] += 1


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a raw file, plain or gzipped. Raises ValueError when it is not a raw file of the study."""
    csv.field_size_limit(sys.maxsize)  # one cell holds all jobs of a run
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"repo", "id_build", "created_at", "updated_at", "conclusion"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: not a raw file of {NAME}: no column {', '.join(sorted(missing))}")
        yield from reader


def convert(paths: Iterable[Path], report: Report) -> Iterator[Event]:
    """Events of raw files, unsorted. A row that can't be read is counted in ``report`` and left out."""
    seen: set[tuple[str, str]] = set()
    for path in paths:
        for row in read_rows(path):
            report.add("rows")
            identity = (row["repo"], row["id_build"])
            if identity in seen:
                report.add("rows left out: the same run again")
                continue
            try:
                events = list(_events(row, report))
            except (ValueError, KeyError) as error:
                report.add(f"rows left out: unreadable ({type(error).__name__})")
                continue
            seen.add(identity)
            for event in events:
                report.add(f"events {event.type}")
            yield from events


def _events(row: Row, report: Report) -> Iterator[Event]:
    created = waits.parse_time(row["created_at"])
    tenant, _, name = row["repo"].partition("/")
    if not (tenant and name and row["id_build"]):
        raise ValueError("no repository or run id")
    queued = BuildQueued(build_id=row["id_build"], context=_context(row, created))
    yield _event("build.queued", created, tenant, row, queued)

    if not row["conclusion"]:
        report.add("runs that never ended: no build.completed")
        return
    jobs = _jobs(row, report)
    timing = waits.measure(created, waits.parse_time(row["updated_at"]), waits.job_intervals(jobs))
    completed = BuildCompleted(
        build_id=row["id_build"],
        repository=row["repo"],
        pipeline=queued.context.pipeline,
        branch=queued.context.branch,
        outcome=_OUTCOMES.get(row["conclusion"], BuildOutcome.BUILD_OUTCOME_OTHER),
        job_count=len(jobs),
    )
    completed.waiting_duration.FromTimedelta(timing.waiting)
    completed.queued_time.FromDatetime(created)
    completed.completed_time.FromDatetime(timing.completed)
    if timing.duration is None:
        report.add("runs whose duration can't be told (no jobs, over 6 h)")
    else:
        completed.duration.FromTimedelta(timing.duration)
    attempt = _number(row.get("run_attempt_from_api"))
    if attempt is not None and attempt >= 1:
        completed.attempt_count = int(attempt)
    if timing.waiting:
        report.add("runs with waiting taken out")
        report.waiting_seconds += timing.waiting.total_seconds()
        if row["conclusion"] == "success":
            report.add("… of them passed")
    if timing.record_touched_later:
        report.add("runs whose record was touched long after their end: end of the last job taken")
    yield _event("build.completed", timing.completed, tenant, row, completed)


def _event(kind: str, time: datetime, tenant: str, row: Row, data: BuildQueued | BuildCompleted) -> Event:
    return Event(
        time=time,
        type=kind,
        id=f"{row['id_build']}/{kind.rpartition('.')[2]}",
        source=f"/github-actions/{row['repo']}",
        tenant_id=tenant,
        subject=row["id_build"],
        data=data,
    )


def _context(row: Row, created: datetime) -> BuildContext:
    change = ChangeSet(file_extensions=_extensions(row.get("file_types")))
    _set_counts(change, _CHANGE_COUNTS, row)
    for field, column in _CHANGE_FLAGS.items():
        value = _number(row.get(column))
        if value is not None:
            setattr(change, field, value > 0)
    state = RepositoryState(language=row.get("languages", "")[:64], build_tool=row.get("build_language", "")[:64])
    _set_counts(state, _STATE_COUNTS, row)
    density = _number(row.get("gh_test_lines_per_kloc"))
    if density is not None and density >= 0:
        state.test_lines_per_thousand = density
    context = BuildContext(
        repository=row["repo"],
        pipeline=row.get("workflow_id") or row["workflow_name"],
        branch=row.get("branch", "")[:256],
        trigger=_TRIGGERS.get(row.get("workflow_event_trigger", ""), BuildTrigger.BUILD_TRIGGER_OTHER),
        actor=row.get("issuer_name", "")[:256],
        commit_sha=row.get("commit_sha", "")[:64],
        change=change,
        repository_state=state,
    )
    context.queued_time.FromDatetime(created)
    return context


def _set_counts(message: ChangeSet | RepositoryState, columns: Mapping[str, str], row: Row) -> None:
    for field, column in columns.items():
        value = _number(row.get(column))
        if value is not None and value >= 0:
            setattr(message, field, int(value))


def _number(text: str | None) -> float | None:
    if not text:
        return None
    if text in ("True", "False"):
        return float(text == "True")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _jobs(row: Row, report: Report) -> list[dict[str, str | None]]:
    try:
        jobs = json.loads(row.get("job_details") or "[]") or []
    except json.JSONDecodeError:
        jobs = None
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        report.add("runs whose jobs can't be read: waits can't be told")
        return []
    return jobs


def _extensions(text: str | None) -> list[str]:
    if not text:
        return []
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(value)[:64] for value in values if isinstance(value, str)][:64] if isinstance(values, list) else []
