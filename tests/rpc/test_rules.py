"""Field rules: each table, good and bad."""

# ruff: noqa: E501 - one line per case reads better

from __future__ import annotations

import contextlib
import math

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from conductor.build.v1.build_context_pb2 import BuildContext, ChangeSet, RepositoryState
from conductor.events.v1.build_pb2 import BuildCompleted, BuildQueued
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest, PredictBuildDurationRequest
from conductor_rpc import rules
from conductor_rpc.exceptions import BatchTooLarge
from rpc.harness import failure, request, serving

NOW, LATER = Timestamp(seconds=1_700_000_000), Timestamp(seconds=1_700_000_600)
CONTEXT = BuildContext(repository="shop/web", pipeline="ci", queued_time=NOW)
COMPLETED = BuildCompleted(
    build_id="1", repository="shop/web", pipeline="ci", queued_time=NOW, completed_time=LATER, outcome=1
)
EVENT = CloudEvent(id="1", source="/ci", type="build.queued", time=NOW, tenant_id="acme")
GOOD = [
    PredictBuildDurationRequest(tenant_id="acme", build=CONTEXT, contribution_count=32),
    PredictBuildDurationRequest(tenant_id="acme", build=BuildContext(repository="r", pipeline="p")),
    BuildQueued(build_id="1", context=CONTEXT),
    COMPLETED,
    EVENT,
    CloudEvent(id="1", source="/ci", type="t", time=NOW, tenant_id="é" * 128, spec_version="1.0"),
    BatchPredictBuildDurationsRequest(tenant_id="acme"),
    PublishEventsRequest(tenant_id="acme"),
]


def predict(**build):
    return PredictBuildDurationRequest(tenant_id="acme", build={"repository": "r", "pipeline": "p", **build})


def completed(**changes):
    message = BuildCompleted()
    message.CopyFrom(COMPLETED)
    message.MergeFrom(BuildCompleted(**changes))
    return message


def event(**changes):
    message = CloudEvent()
    message.CopyFrom(EVENT)
    for name, value in changes.items():
        message.ClearField(name)
        message.MergeFrom(CloudEvent(**{name: value}))
    return message


BAD = [
    (PredictBuildDurationRequest(), {"tenant_id", "build"}),
    (PredictBuildDurationRequest(tenant_id="acme", build={}), {"build.repository", "build.pipeline"}),
    (PredictBuildDurationRequest(tenant_id="a\0b", build=CONTEXT), {"tenant_id"}),
    (PredictBuildDurationRequest(tenant_id="a" * 129, build=CONTEXT), {"tenant_id"}),
    (PredictBuildDurationRequest(tenant_id="a", build=CONTEXT, contribution_count=33), {"contribution_count"}),
    (PredictBuildDurationRequest(tenant_id="a", build=CONTEXT, contribution_count=-1), {"contribution_count"}),
    (predict(repository="r" * 257), {"build.repository"}),
    (predict(pipeline="p\0"), {"build.pipeline"}),
    (predict(branch="b" * 257, actor="a" * 257, commit_sha="c" * 65), {f"build.{f}" for f in ("branch", "actor", "commit_sha")}),
    (predict(queued_time=Timestamp(seconds=-1)), {"build.queued_time"}),
    (predict(queued_time=Timestamp(seconds=1_700_000_000_000)), {"build.queued_time"}),
    (predict(queued_time=Timestamp(seconds=1_700_000_000, nanos=-1)), {"build.queued_time"}),
    (predict(change={"added_line_count": -1, "added_file_count": -5}), {"build.change.added_line_count", "build.change.added_file_count"}),
    (predict(change={"file_extensions": [".a"] * 65}), {"build.change.file_extensions"}),
    (predict(change={"file_extensions": [".a", "\0"]}), {"build.change.file_extensions[1]"}),
    (predict(repository_state={"test_lines_per_thousand": math.nan}), {"build.repository_state.test_lines_per_thousand"}),
    (predict(repository_state={"test_lines_per_thousand": math.inf}), {"build.repository_state.test_lines_per_thousand"}),
    (predict(repository_state={"test_lines_per_thousand": -0.5}), {"build.repository_state.test_lines_per_thousand"}),
    (predict(repository_state={"language": "x" * 65}), {"build.repository_state.language"}),
    (BuildQueued(build_id="1"), {"context"}),
    (BuildQueued(context=CONTEXT), {"build_id"}),
    (BuildQueued(build_id="1", context={"repository": "r", "pipeline": "p"}), {"context.queued_time"}),
    (BuildCompleted(), {"build_id", "repository", "pipeline", "queued_time", "completed_time", "outcome"}),
    (completed(completed_time=Timestamp(seconds=1_600_000_000)), {"completed_time"}),
    (completed(outcome=99), {"outcome"}),
    (completed(duration=Duration(seconds=-1)), {"duration"}),
    (completed(waiting_duration=Duration(nanos=-1)), {"waiting_duration"}),
    (completed(duration=Duration(seconds=10**12)), {"duration"}),
    (completed(attempt_count=0), {"attempt_count"}),
    (completed(job_count=-1), {"job_count"}),
    (CloudEvent(), {"id", "source", "type", "time", "tenant_id"}),
    (event(id="x" * 257), {"id"}),
    (event(source="s\0"), {"source"}),
    (event(spec_version="0.3"), {"spec_version"}),
    (PublishEventsRequest(), {"tenant_id"}),
]  # fmt: skip


@pytest.mark.parametrize("message", GOOD, ids=lambda m: type(m).__name__)
def test_good(message):
    assert rules.violations(message) == []


@pytest.mark.parametrize(
    ("message", "fields"), BAD, ids=[f"{type(message).__name__}-{','.join(sorted(fields))}" for message, fields in BAD]
)
def test_bad(message, fields):
    found = rules.violations(message)
    assert {violation.field for violation in found} == fields
    assert all(violation.description for violation in found)


@pytest.mark.parametrize("kind", rules.TABLES, ids=lambda kind: kind.DESCRIPTOR.full_name)
def test_of_an_empty_message_every_required_field_is_told(kind):
    required = [name for name, rule in rules.TABLES[kind].items() if rule.required]
    told = [violation.field for violation in rules.violations(kind()) if violation.description == "is required"]
    assert sorted(told) == sorted(required)


def test_violations_stand_in_the_order_of_the_fields():
    change = {"added_line_count": -1, "file_extensions": [".a", "\0", ".b", "\0"]}
    message = PredictBuildDurationRequest(build={"pipeline": "p\0", "change": change}, contribution_count=99)
    assert [(violation.field, violation.description) for violation in rules.violations(message)] == [
        ("tenant_id", "is required"),
        ("build.repository", "is required"),
        ("build.pipeline", "must not contain a NUL character"),
        ("build.change.added_line_count", "must not be negative"),
        ("build.change.file_extensions[1]", "must not contain a NUL character"),
        ("build.change.file_extensions[3]", "must not contain a NUL character"),
        ("contribution_count", "must be at most 32"),
    ]


@pytest.mark.parametrize("message", [ChangeSet, RepositoryState])
def test_every_number_of_a_context_has_a_rule(message):
    numbers = [f.name for f in message.DESCRIPTOR.fields if f.cpp_type in (f.CPPTYPE_INT64, f.CPPTYPE_DOUBLE)]
    assert numbers
    assert set(numbers) <= set(rules.TABLES[message])


def test_every_rule_is_of_a_field_that_exists():
    for message, table in rules.TABLES.items():
        assert set(table) <= {field.name for field in message.DESCRIPTOR.fields}, message


def test_too_large_batches():
    with pytest.raises(BatchTooLarge):
        rules.validate(BatchPredictBuildDurationsRequest(tenant_id="a", requests=[{}] * 1025))
    rules.validate(BatchPredictBuildDurationsRequest(tenant_id="a", requests=[{}] * 1024))


@given(st.binary(max_size=200))
def test_any_message_is_judged_without_a_crash(content):
    for kind in rules.TABLES:
        with contextlib.suppress(DecodeError):
            rules.violations(kind.FromString(content))


async def test_through_the_wire():
    async with serving() as running, running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(change={"added_line_count": -1}))
        found = failure(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert found.fields == {"build.change.added_line_count": "must not be negative"}
        assert running.predictions.calls == 0
