"""Requests about tests from what a caller says."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict

from conductor.testing.v1 import test_run_pb2
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import FlakyState as FlakyStateMessage
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor.testing.v1.test_run_pb2 import ChangeKind, TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_client.builds import timestamp
from conductor_client.testing.enums import FlakyState


@dataclass(frozen=True)
class ChangedFile:
    """One file of a change."""

    path: str
    old_path: str = ""
    """Before, where that was another."""
    kind: str = "modified"
    """Or "added", "deleted", "renamed", "copied"."""
    added_line_count: int | None = None
    deleted_line_count: int | None = None


class RunFields(TypedDict, total=False):
    """The fields of a ``conductor.testing.v1.TestRunContext``; the repository is required."""

    repository: str
    test_ids: Iterable[str]
    """Candidates, each once; none for all known tests of the repository."""
    diff: bytes | str
    """The change, as a unified diff; at most 2 MiB."""
    changed_files: Iterable[str | ChangedFile]
    """The change, where there is no diff: paths, or more than that."""
    commit_sha: str
    start_time: datetime
    """When the run begins, with a time zone: only what was known before is used. Absent means now."""


class GoalFields(TypedDict, total=False):
    """What a selection is to meet: one of the two."""

    miss_rate: float
    """Of the failures of a run that has any, at most this share may be missed; from 0.001 to 0.5."""
    time_share: float
    """At most this share of the candidates' expected time may be used."""


def goal_fields(miss_rate: float | None, time_share: float | None) -> GoalFields:
    """The goal that is told. Raises TypeError for none or both."""
    if (miss_rate is None) == (time_share is None):
        raise TypeError("give one goal: miss_rate or time_share")
    return {"time_share": time_share} if miss_rate is None else {"miss_rate": miss_rate}  # type: ignore[typeddict-item]


def run_context(fields: RunFields) -> TestRunContext:
    """The message. Raises TypeError or ValueError for what no request can hold."""
    diff = fields.get("diff", b"")
    run = TestRunContext(
        repository=fields["repository"],
        commit_sha=fields.get("commit_sha", ""),
        test_ids=fields.get("test_ids", ()),
        changed_files=map(_changed_file, fields.get("changed_files", ())),
        diff=diff.encode("utf-8", "surrogateescape") if isinstance(diff, str) else diff,
    )
    if (start := fields.get("start_time")) is not None:
        run.start_time.CopyFrom(timestamp(start, "start_time"))
    return run


def _changed_file(file: str | ChangedFile) -> test_run_pb2.ChangedFile:
    if isinstance(file, str):
        return test_run_pb2.ChangedFile(path=file)
    return test_run_pb2.ChangedFile(
        path=file.path,
        old_path=file.old_path,
        kind=ChangeKind.Value(f"CHANGE_KIND_{file.kind.upper()}"),
        added_line_count=file.added_line_count,
        deleted_line_count=file.deleted_line_count,
    )


def selection_request(
    tenant_id: str,
    fields: RunFields,
    goal: GoalFields,
    must_run: Iterable[str],
    must_run_distance: int | None,
    audit_share: float | None,
) -> SelectTestsRequest:
    """The request for a selection. Raises as `run_context`."""
    return SelectTestsRequest(
        tenant_id=tenant_id,
        run=run_context(fields),
        must_run=must_run,
        must_run_distance=must_run_distance,
        audit_share=audit_share,
        **goal,
    )


def flaky_request(
    tenant_id: str, repository: str, states: Iterable[FlakyState | str], page_size: int | None
) -> ListFlakyTestsRequest:
    """The request for the first page. Raises KeyError for a state that there is none of."""
    numbers = [FlakyState[state.upper()] if isinstance(state, str) else state for state in states]
    return ListFlakyTestsRequest(
        tenant_id=tenant_id,
        repository=repository,
        states=map(FlakyStateMessage.ValueType, numbers),
        page_size=page_size or 0,
    )


class FailureFields(RunFields, total=False):
    """What is known of a failure, beside its test: its run, whose ``test_ids`` must be absent, and more."""

    failure_message: str
    attempt_count: int
    """How often the test was tried in this run, the failure included."""
    passed_attempt_count: int
    failed_test_count: int
    """How many tests failed in this run, this one included."""
    executed_test_count: int
    duration: timedelta


def failure_request(tenant_id: str, test_id: str, fields: FailureFields) -> ClassifyFailureRequest:
    """The request for a verdict. Raises as `run_context`."""
    request = ClassifyFailureRequest(
        tenant_id=tenant_id,
        run=run_context(fields),
        test_id=test_id,
        failure_message=fields.get("failure_message", ""),
        attempt_count=fields.get("attempt_count"),
        passed_attempt_count=fields.get("passed_attempt_count"),
        failed_test_count=fields.get("failed_test_count"),
        executed_test_count=fields.get("executed_test_count"),
    )
    if (duration := fields.get("duration")) is not None:
        request.duration.FromTimedelta(duration)
    return request
