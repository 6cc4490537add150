"""Bounds that are held to before a message is decoded."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor.build.v1.build_context_pb2 import ChangeSet
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.test_pb2 import TestCompleted
from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest, PredictBuildDurationRequest
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor.testing.v1.test_run_pb2 import TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_rpc import rules
from conductor_rpc.exceptions import BatchTooLarge, ConductorError, InvalidRequest
from conductor_rpc.rules import undecoded

BUILD = {
    "repository": "r" * 200,
    "pipeline": "p" * 200,
    "branch": "b" * 200,
    "change": {"file_extensions": ["py"] * 64},
}
LARGE = "x" * undecoded.SMALL_BYTES


@pytest.mark.parametrize(
    "message",
    [
        BatchPredictBuildDurationsRequest(tenant_id="a", requests=[{"tenant_id": "a", "build": BUILD}] * 1024),
        PublishEventsRequest(tenant_id="a", events=[{"id": "1", "text_data": "{}" * 400}] * 1000),
        TestCompleted(results=[{"test_id": str(n)} for n in range(50_000)], changed_paths=["a"] * 1000),
        ModelInferRequest(inputs=[{"name": "i", "shape": [8192, 30], "contents": {"fp32_contents": [1.0] * 245_760}}]),
        ModelInferRequest(raw_input_contents=[bytes(1 << 20)], id=LARGE),
        PredictBuildDurationRequest(tenant_id=LARGE, build=BUILD),
        SelectTestsRequest(
            run={
                "test_ids": [f"{number:x}" * (1 + number % 90) for number in range(20_000)],
                "changed_files": [{"path": "a"}] * 5_000,
            },
            must_run=["a"] * 1_000,
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_largest_that_is_allowed(message: Message) -> None:
    rules.require_bounds(message.SerializeToString(), type(message))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (BatchPredictBuildDurationsRequest(tenant_id="a" * 5000, requests=[{}] * 1025), "requests"),
        (PublishEventsRequest(tenant_id="a" * 5000, events=[{}] * 1001), "events"),
        (ModelInferRequest(id=LARGE, inputs=[{}] * 17), "inputs"),
        (ModelInferRequest(id=LARGE, raw_input_contents=[b""] * 1025), "raw_input_contents"),
        (ModelInferRequest(id=LARGE, inputs=[{"shape": [1] * 10_241}]), "inputs[0].shape"),
        (TestCompleted(run_id=LARGE, results=[{}] * 50_001), "results"),
        (SelectTestsRequest(run={"test_ids": ["a"] * 20_001}), "run.test_ids"),
        (SelectTestsRequest(run={"test_ids": [""] * 2_000_000}), "run.test_ids"),
        (SelectTestsRequest(run={"changed_files": [{"path": LARGE}] + [{}] * 5_000}), "run.changed_files"),
        (SelectTestsRequest(must_run=[LARGE] * 1_001), "must_run"),
        (ListFlakyTestsRequest(repository=LARGE, states=[1] * 10_241), "states"),
        (PredictBuildDurationRequest(tenant_id=LARGE, build={"change": {"file_extensions": ["extension"] * 65}}),
         "build.change.file_extensions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_one_more(message: Message, field: str) -> None:
    with pytest.raises(ConductorError) as refused:
        rules.require_bounds(message.SerializeToString(), type(message))
    if isinstance(refused.value, BatchTooLarge):
        assert (refused.value.field, str(refused.value)) == (
            field, f"{field} holds too many items; the limit is {refused.value.limit}"
        )  # fmt: skip
    else:
        assert isinstance(refused.value, InvalidRequest)
        assert [violation.field for violation in refused.value.violations] == [field]


def test_what_may_stand_once_does() -> None:
    """Messages that stand twice would be merged, their lists added up."""
    build = PredictBuildDurationRequest(build=BUILD).SerializeToString()
    with pytest.raises(InvalidRequest, match="build: must stand there once"):
        rules.require_bounds(build * 6, PredictBuildDurationRequest)


@pytest.mark.parametrize("count", [16, 17])
def test_unknown_fields_are_counted_over_all_parts(count: int) -> None:
    """Each part may hold as many as a message: of thousands of parts the loop looked at millions of fields."""
    unknown = b"\xc0\x3e\x01" * 1_024  # field 1000
    request = PredictBuildDurationRequest(tenant_id="acme").SerializeToString() + unknown
    part = b"\x12" + bytes([len(request) & 127 | 128, len(request) >> 7]) + request
    message = BatchPredictBuildDurationsRequest.FromString(part)
    assert len(message.requests) == 1
    if count == 16:
        rules.require_bounds(part * count, BatchPredictBuildDurationsRequest)
        return
    with pytest.raises(InvalidRequest, match="the request: must hold at most 16384 unknown fields in all"):
        rules.require_bounds(part * count, BatchPredictBuildDurationsRequest)


_BYTES = st.binary(max_size=300).map(lambda content: content * (undecoded.SMALL_BYTES // max(1, len(content)) + 1))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(content=_BYTES)
def test_whatever_the_bytes_are(content: bytes) -> None:
    """It ends in one of three ways, and what is no message for it is none for protobuf, groups apart."""
    for kind in (BatchPredictBuildDurationsRequest, ModelInferRequest, ChangeSet, TestRunContext):
        try:
            rules.require_bounds(content, kind)
        except (InvalidRequest, BatchTooLarge):
            continue
        except DecodeError:
            if not any(byte & 7 in (3, 4) for byte in content):
                with pytest.raises(DecodeError):
                    kind.FromString(content)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(counts=st.lists(st.integers(0, 70), min_size=1, max_size=12), room=st.sampled_from([0, 5000]))
def test_no_list_that_is_too_long_gets_through(counts: list[int], room: int) -> None:
    """Where the message or its part is small, the rules look at it afterwards."""
    requests = [{"build": {"change": {"file_extensions": ["e" * 12] * count}}} for count in counts]
    message = BatchPredictBuildDurationsRequest(tenant_id="t" * room, requests=requests)
    content = message.SerializeToString()
    long = len(content) > undecoded.SMALL_BYTES and max(counts) > 64
    try:
        rules.require_bounds(content, BatchPredictBuildDurationsRequest)
    except InvalidRequest:
        assert long
    else:
        assert not long


_LENGTHS = st.sampled_from([0, 1, 5, 126, 127, 128, 300, 16_383, 16_384, 40_000])


@settings(max_examples=200, derandomize=True, deadline=None)
@given(lengths=st.lists(_LENGTHS, min_size=1, max_size=30), cut=st.integers(0, 40), more=st.booleans())
def test_a_long_list_is_passed_as_protobuf_reads_it(lengths: list[int], cut: int, more: bool) -> None:
    """However long its items are, whatever follows, and wherever it is cut off."""
    run = TestRunContext(
        repository=LARGE * 2, test_ids=["x" * length for length in lengths], diff=b"d" if more else b""
    )
    content = run.SerializeToString()
    content = content[: len(content) - cut]
    try:
        TestRunContext.FromString(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            rules.require_bounds(content, TestRunContext)
    else:
        rules.require_bounds(content, TestRunContext)


def test_a_list_in_pieces_is_counted_as_one() -> None:
    piece = TestRunContext(test_ids=["a"] * 10_000).SerializeToString()
    other = TestRunContext(commit_sha="c").SerializeToString()
    rules.require_bounds(piece + other + piece, TestRunContext)
    one = TestRunContext(test_ids=["a"]).SerializeToString()
    for content in (piece + other + piece + one, piece + other + one * 10_001):
        with pytest.raises(InvalidRequest, match="test_ids: must hold at most 20000 items"):
            rules.require_bounds(content, TestRunContext)
