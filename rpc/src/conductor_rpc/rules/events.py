"""Rules of events."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor.events.v1.change_request_pb2 import ChangeRequestMerged
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.deployment_pb2 import DeploymentCompleted, DeploymentOutcome
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.incident_pb2 import IncidentOpened, IncidentResolved, IncidentSeverity
from conductor.events.v1.quality_pb2 import (
    GateCondition,
    GateOperator,
    IssueCounts,
    QualityGateEvaluated,
    QualityGateStatus,
    QualityScore,
)
from conductor.events.v1.tenant_pb2 import TenantCreated
from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome, TestResult
from conductor.events.v1.test_quarantine_pb2 import TestQuarantined, TestReleased
from conductor.events.v1.usage_pb2 import UsageUpdated
from conductor_rpc.exceptions import Violation
from conductor_rpc.rules.engine import (
    COUNT,
    TENANT,
    Batch,
    Known,
    Many,
    Moment,
    Nested,
    Number,
    Span,
    Table,
    Text,
    Thousands,
    Together,
    counts,
)

MAX_BATCH_EVENTS = 1000
COVERAGE_METRIC = "coverage_ratio"
ISSUE_METRICS = {field.name: field.name.replace("_count", "_issue_count") for field in IssueCounts.DESCRIPTOR.fields}
"""Fields of IssueCounts, and the metrics that they are kept as."""

_ID = Text(128, required=True)
_OPTIONAL_ID = Text(128)
_NAME = Text(256, required=True)
_OPTIONAL_NAME = Text(256)
_COMMIT = Text(64)
_METRIC = Text(128, required=True)
_ANY_NUMBER = Number(-sys.float_info.max)
_WHEN = Moment(required=True)
_SPAN = Span()
_KNOWN_TEST_OUTCOMES = frozenset(TestOutcome.values()) - {TestOutcome.TEST_OUTCOME_UNSPECIFIED}


def _results_hold(results: Sequence[TestResult]) -> bool:
    tests = [result.test_id for result in results]
    messages = [result.failure_message for result in results if result.failure_message]
    spans = [result.duration for result in results if result.HasField("duration")]
    return (
        all(tests)
        and max(map(len, tests), default=0) <= _TEST_ID.maximum
        and max(map(len, messages), default=0) <= _FAILURE_MESSAGE.maximum
        and "\0" not in "".join(tests)
        and "\0" not in "".join(messages)
        and {result.outcome for result in results} <= _KNOWN_TEST_OUTCOMES
        and all(0 <= span.seconds <= _SPAN.maximum_seconds and 0 <= span.nanos <= 999_999_999 for span in spans)
    )


_TEST_ID, _FAILURE_MESSAGE, _REASON = Text(512, required=True), Text(1000), Text(1000)

TABLES: Mapping[type[Message], Table] = {
    CloudEvent: {
        "id": Text(256, required=True),
        "source": Text(512, required=True),
        "spec_version": Text(8),
        "type": Text(128, required=True),
        "time": _WHEN,
        "tenant_id": TENANT,
        "subject": Text(512),
    },
    PublishEventsRequest: {"tenant_id": TENANT, "events": Batch(MAX_BATCH_EVENTS)},
    TenantCreated: {"display_name": _OPTIONAL_NAME, "plan": Text(64), "created_time": _WHEN},
    BuildQueued: {"build_id": _ID, "context": Nested(required=True)},
    BuildCompleted: {
        "build_id": _ID,
        "repository": _NAME,
        "pipeline": _NAME,
        "branch": _OPTIONAL_NAME,
        "queued_time": _WHEN,
        "completed_time": _WHEN,
        "outcome": Known(BuildOutcome, required=True),
        "duration": _SPAN,
        "waiting_duration": _SPAN,
        "attempt_count": Number(1),
        "job_count": COUNT,
    },
    TestCompleted: {
        "run_id": _ID,
        "repository": _NAME,
        "pipeline": _OPTIONAL_NAME,
        "branch": _OPTIONAL_NAME,
        "commit_sha": _COMMIT,
        "build_id": _OPTIONAL_ID,
        "started_time": Moment(),
        "completed_time": _WHEN,
        "changed_paths": Many(1_000, Text(512)),
        "results": Thousands(50_000, _results_hold),
    },
    TestResult: {
        "test_id": _TEST_ID,
        "outcome": Known(TestOutcome, required=True),
        "duration": _SPAN,
        "failure_message": _FAILURE_MESSAGE,
    },
    TestQuarantined: {"repository": _NAME, "test_id": _TEST_ID, "quarantined_time": _WHEN, "reason": _REASON},
    TestReleased: {"repository": _NAME, "test_id": _TEST_ID, "released_time": _WHEN, "reason": _REASON},
    QualityGateEvaluated: {
        "evaluation_id": _ID,
        "repository": _NAME,
        "branch": _NAME,
        "commit_sha": _COMMIT,
        "build_id": _OPTIONAL_ID,
        "evaluated_time": _WHEN,
        "status": Known(QualityGateStatus, required=True),
        "scores": Many(256, Nested()),
        "coverage_ratio": Number(0, 1),
        "issues": Nested(),
        "conditions": Many(256, Nested()),
    },
    QualityScore: {"metric": _METRIC, "value": _ANY_NUMBER},
    IssueCounts: counts(IssueCounts),
    GateCondition: {
        "metric": _METRIC,
        "operator": Known(GateOperator, required=True),
        "threshold": _ANY_NUMBER,
        "value": _ANY_NUMBER,
        "status": Known(QualityGateStatus, required=True),
    },
    UsageUpdated: {"measured_time": _WHEN, **counts(UsageUpdated)},
    DeploymentCompleted: {
        "deployment_id": _ID,
        "repository": _NAME,
        "environment": _ID,
        "commit_sha": _COMMIT,
        "build_id": _OPTIONAL_ID,
        "started_time": Moment(),
        "completed_time": _WHEN,
        "outcome": Known(DeploymentOutcome, required=True),
    },
    IncidentOpened: {
        "incident_id": _ID,
        "repository": _OPTIONAL_NAME,
        "environment": _OPTIONAL_ID,
        "severity": Known(IncidentSeverity, required=True),
        "opened_time": _WHEN,
        "deployment_id": _OPTIONAL_ID,
    },
    IncidentResolved: {"incident_id": _ID, "resolved_time": _WHEN, "deployment_id": _OPTIONAL_ID},
    ChangeRequestMerged: {
        "change_request_id": _ID,
        "repository": _NAME,
        "target_branch": _OPTIONAL_NAME,
        "author": _OPTIONAL_NAME,
        "opened_time": Moment(),
        "merged_time": _WHEN,
        "merge_commit_sha": _COMMIT,
        "change": Nested(),
        **counts(ChangeRequestMerged),
    },
}


def _spec_version(message: CloudEvent) -> Iterator[Violation]:
    if message.spec_version not in {"", "1.0"}:
        yield Violation("spec_version", 'must be "1.0"')


def _queued_time_required(message: BuildQueued) -> Iterator[Violation]:
    if message.HasField("context") and not message.context.HasField("queued_time"):
        yield Violation("context.queued_time", "is required")


def _ordered(earlier: str, later: str) -> Callable[[Any], Iterator[Violation]]:
    """``later`` is not before ``earlier``, where that is told."""

    def check(message: Any) -> Iterator[Violation]:
        if message.HasField(earlier):
            first, last = getattr(message, earlier), getattr(message, later)
            if (last.seconds, last.nanos) < (first.seconds, first.nanos):
                yield Violation(later, f"must not be before {earlier}")

    return check


def _test_completed(message: TestCompleted) -> Iterator[Violation]:
    yield from _ordered("started_time", "completed_time")(message)
    if not all(message.changed_paths):
        yield Violation("changed_paths", "must not hold an empty path")


def _each_metric_once(message: QualityGateEvaluated) -> Iterator[Violation]:
    seen = {COVERAGE_METRIC, *ISSUE_METRICS.values()}
    for index, score in enumerate(message.scores):
        if score.metric in seen:
            yield Violation(f"scores[{index}].metric", "stands twice, or is a name with a field of its own")
        seen.add(score.metric)


def _something_measured(message: UsageUpdated) -> Iterator[Violation]:
    if len(message.ListFields()) < 2:
        yield Violation("measured_time", "must come with at least one value")


TOGETHER: Mapping[type[Message], Together] = {
    CloudEvent: _spec_version,
    BuildQueued: _queued_time_required,
    BuildCompleted: _ordered("queued_time", "completed_time"),
    TestCompleted: _test_completed,
    QualityGateEvaluated: _each_metric_once,
    UsageUpdated: _something_measured,
    DeploymentCompleted: _ordered("started_time", "completed_time"),
    ChangeRequestMerged: _ordered("opened_time", "merged_time"),
}
