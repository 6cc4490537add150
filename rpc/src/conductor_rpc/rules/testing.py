"""Rules of questions about tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import FlakyState, ListFlakyTestsRequest
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_run_pb2 import ChangedFile, TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_rpc.exceptions import Violation
from conductor_rpc.rules.engine import (
    COUNT,
    TENANT,
    Content,
    Known,
    Many,
    Moment,
    Names,
    Nested,
    Number,
    Span,
    Table,
    Text,
    Thousands,
    Together,
)

MAX_TESTS, MAX_FILES, MAX_DIFF_BYTES = 20_000, 5_000, 2 << 20
_MOST_STATES = 8
_MOST_TOKEN_CHARACTERS = 4_096
_ONE_OR_MORE = Number(1)


@dataclass(frozen=True, slots=True)
class _Share:
    """A share that is not nothing."""

    required: bool = False

    def check(self, value: float, path: str) -> Sequence[Violation]:
        """Violations of a share."""
        return () if 0 < value <= 1 else [Violation(path, "must be above 0 and at most 1")]


def _files_hold(files: Sequence[ChangedFile]) -> bool:
    paths = [file.path for file in files]
    old_paths = [file.old_path for file in files]
    return (
        all(paths)
        and max(map(len, paths), default=0) <= _PATH.maximum
        and max(map(len, old_paths), default=0) <= _PATH.maximum
        and "\0" not in "".join(paths)
        and "\0" not in "".join(old_paths)
        and all(file.added_line_count >= 0 and file.deleted_line_count >= 0 for file in files)
    )


_REPOSITORY, _TEST, _PATH = Text(256, required=True), Text(512, required=True), Text(512, required=True)
_RUN = Nested(required=True)
_OF_RUN: Table = {"tenant_id": TENANT, "run": _RUN}

TABLES: Mapping[type[Message], Table] = {
    ChangedFile: {
        "path": _PATH,
        "old_path": Text(_PATH.maximum),
        "added_line_count": COUNT,
        "deleted_line_count": COUNT,
    },
    TestRunContext: {
        "repository": _REPOSITORY,
        "commit_sha": Text(64),
        "test_ids": Names(MAX_TESTS, _TEST.maximum, once=True),
        "changed_files": Thousands(MAX_FILES, _files_hold),
        "diff": Content(MAX_DIFF_BYTES),
        "start_time": Moment(),
    },
    PredictTestFailuresRequest: {**_OF_RUN, "explanation_count": Number(0, 100)},
    SelectTestsRequest: {
        **_OF_RUN,
        "time_share": _Share(),
        "miss_rate": Number(0.001, 0.5),
        "must_run": Names(1_000, 512),
        "must_run_distance": COUNT,
        "audit_share": Number(0, 0.5),
    },
    PrioritizeTestsRequest: _OF_RUN,
    ListFlakyTestsRequest: {
        "tenant_id": TENANT,
        "repository": _REPOSITORY,
        "states": Many(_MOST_STATES, Known(FlakyState)),
        "page_size": Number(0, 1_000),
        "page_token": Text(_MOST_TOKEN_CHARACTERS),
    },
    ClassifyFailureRequest: {
        **_OF_RUN,
        "test_id": _TEST,
        "failure_message": Text(10_000),
        "attempt_count": _ONE_OR_MORE,
        "passed_attempt_count": COUNT,
        "failed_test_count": _ONE_OR_MORE,
        "executed_test_count": _ONE_OR_MORE,
        "duration": Span(),
    },
}


def _told_once(run: TestRunContext) -> Iterator[Violation]:
    if run.diff and run.changed_files:
        yield Violation("diff", "must be empty where changed_files are given")


def _has_goal(request: SelectTestsRequest) -> Iterator[Violation]:
    if request.WhichOneof("goal") is None:
        yield Violation("goal", "is required: time_share or miss_rate")


def _states_are_told(request: ListFlakyTestsRequest) -> Iterator[Violation]:
    for index, state in enumerate(request.states):
        if state == FlakyState.FLAKY_STATE_UNSPECIFIED:
            yield Violation(f"states[{index}]", "must be a known value")


def _one_failure(request: ClassifyFailureRequest) -> Iterator[Violation]:
    if request.run.test_ids:
        yield Violation("run.test_ids", "must be empty: test_id names the test")
    yield from _at_most(request, "passed_attempt_count", "attempt_count", less=1)  # the failure was one of them
    yield from _at_most(request, "failed_test_count", "executed_test_count")


def _at_most(message: Any, name: str, other: str, less: int = 0) -> Iterator[Violation]:
    """One count is not above another, where both are told."""
    if message.HasField(name) and message.HasField(other) and getattr(message, name) > getattr(message, other) - less:
        yield Violation(name, f"must be {'less than' if less else 'at most'} {other}")


TOGETHER: Mapping[type[Message], Together] = {
    TestRunContext: _told_once,
    SelectTestsRequest: _has_goal,
    ListFlakyTestsRequest: _states_are_told,
    ClassifyFailureRequest: _one_failure,
}
