"""From the contract's messages to the domain's questions about tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

from conductor.testing.v1 import test_run_pb2
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor.testing.v1.test_run_pb2 import ChangeKind, TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_features.changes.changed_file import Change, ChangedFile
from conductor_features.changes.diff import DiffError, DiffLimits, parse_diff
from conductor_rpc.exceptions import InvalidRequest, Violation
from conductor_rpc.rules.testing import MAX_DIFF_BYTES, MAX_FILES
from conductor_server.testing.answers import FlakyStatus
from conductor_server.testing.questions import ChangeTold, Failure, MissRate, SelectionRules, TestRun, TimeShare

_LIMITS = DiffLimits(byte_count=MAX_DIFF_BYTES, file_count=MAX_FILES)
_SMALL_DIFF_BYTES = 4 * 1024
"""Read in half a millisecond: for less it is not worth to ask a thread."""
_FLAKY_NOW = frozenset({FlakyStatus.ACTIVE, FlakyStatus.QUARANTINED})
_CHANGES = {
    ChangeKind.CHANGE_KIND_ADDED: Change.ADDED,
    ChangeKind.CHANGE_KIND_DELETED: Change.DELETED,
    ChangeKind.CHANGE_KIND_RENAMED: Change.RENAMED,
    ChangeKind.CHANGE_KIND_COPIED: Change.COPIED,
}
"""What is not here is a modification."""


async def to_run(tenant_id: str, run: TestRunContext, test_ids: Sequence[str] | None = None) -> TestRun:
    """The run that a valid message tells of. ``test_ids``: instead of its own.

    Raises:
        InvalidRequest: its diff can't be taken.
    """
    named = run.HasField("start_time")
    told, files = await _change(run)
    return TestRun(
        tenant_id=tenant_id,
        repository=run.repository,
        moment_us=run.start_time.ToMicroseconds() if named else time.time_ns() // 1000,
        past_only=named,
        test_ids=list(run.test_ids) if test_ids is None else test_ids,
        told=told,
        files=files,
        commit_sha=run.commit_sha,
    )


async def _change(run: TestRunContext) -> tuple[ChangeTold, Sequence[ChangedFile]]:
    if run.changed_files:
        return ChangeTold.FILES, [_changed_file(file) for file in run.changed_files]
    diff = run.diff
    try:
        if len(diff) <= _SMALL_DIFF_BYTES:
            files = parse_diff(diff, _LIMITS)
        else:
            files = await asyncio.to_thread(parse_diff, diff, _LIMITS)
    except DiffError as error:
        raise InvalidRequest([Violation("run.diff", f"{error} ({error.reason})")]) from error
    return (ChangeTold.DIFF if files else ChangeTold.NOTHING), files


def _changed_file(file: test_run_pb2.ChangedFile) -> ChangedFile:
    path, change = file.path, _CHANGES.get(file.kind, Change.MODIFIED)
    return ChangedFile(
        old_path=None if change is Change.ADDED else file.old_path or path,
        new_path=None if change is Change.DELETED else path,
        change=change,
        added_line_count=file.added_line_count,
        deleted_line_count=file.deleted_line_count,
    )


def to_goal(request: SelectTestsRequest) -> TimeShare | MissRate:
    """What a selection is to meet."""
    return MissRate(request.miss_rate) if request.HasField("miss_rate") else TimeShare(request.time_share)


def to_rules(request: SelectTestsRequest) -> SelectionRules:
    """What holds beside the goal."""
    usual = SelectionRules()
    return SelectionRules(
        must_run=list(request.must_run),
        must_run_distance=request.must_run_distance,
        audit_share=request.audit_share if request.HasField("audit_share") else usual.audit_share,
    )


def to_states(request: ListFlakyTestsRequest) -> Collection[FlakyStatus]:
    """Which tests are wanted."""
    return frozenset(map(FlakyStatus, request.states)) or _FLAKY_NOW


async def to_failure(request: ClassifyFailureRequest) -> Failure:
    """The failure that is to be judged. Raises as :func:`to_run`."""
    return Failure(
        run=await to_run(request.tenant_id, request.run, [request.test_id]),
        message=request.failure_message,
        attempt_count=request.attempt_count if request.HasField("attempt_count") else None,
        passed_attempt_count=request.passed_attempt_count if request.HasField("passed_attempt_count") else None,
        failed_test_count=request.failed_test_count if request.HasField("failed_test_count") else None,
        executed_test_count=request.executed_test_count if request.HasField("executed_test_count") else None,
        seconds=request.duration.ToNanoseconds() / 1e9 if request.HasField("duration") else None,
    )
