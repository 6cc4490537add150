"""What is no proper event becomes a dead letter with the reason, and never an error."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import psycopg
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given, settings

from conductor.events.v1.build_pb2 import BuildCompleted, BuildQueued
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_warehouse import dead_letters
from conductor_warehouse.event_files import UnreadableFile, read_events
from conductor_warehouse.events import (
    EVENT_TYPES,
    MAXIMUM_EVENT_BYTES,
    MAXIMUM_TEST_EVENT_BYTES,
    Event,
    Rejected,
    parse,
)
from conductor_warehouse.ingestion import ingest, requeue
from warehouse.histories import START, Build, completed_event, queued_event

BUILD = Build("b1", START, START + timedelta(seconds=100), duration=90.5)
COMPLETED = json.loads(completed_event(BUILD))
QUEUED = json.loads(queued_event(BUILD))
FUTURE = (datetime.now(UTC) + timedelta(days=30)).isoformat()


def _with(event: dict[str, Any], path: str, value: Any) -> bytes:
    """The event with another value at a path; None takes the field away."""
    changed = json.loads(json.dumps(event))
    *parents, name = path.split(".")
    place = changed
    for parent in parents:
        place = place[parent]
    if value is None:
        place.pop(name, None)
    else:
        place[name] = value
    return json.dumps(changed).encode()


INVALID = [
    (b"", "not JSON"),
    (b"not json", "not JSON"),
    (b'{"id": "1"', "not JSON"),
    (b"[]", "JSON object"),
    (b'"text"', "JSON object"),
    (b"\xff\xfe{}", "not UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 900 + b"1" + b"}" * 900, "specversion"),
    (b" " * MAXIMUM_EVENT_BYTES + b"{}", "larger than"),
    (_with(COMPLETED, "specversion", None), "specversion"),
    (_with(COMPLETED, "specversion", "0.3"), "spec_version"),
    (_with(COMPLETED, "id", None), "id: is required"),
    (_with(COMPLETED, "id", 7), "id: must be a string"),
    (_with(COMPLETED, "id", "x" * 257), "id: must be at most 256"),
    (_with(COMPLETED, "id", "a\0b"), "NUL"),
    (_with(COMPLETED, "id", "\ud800"), "surrogates"),
    (_with(COMPLETED, "source", None), "source: is required"),
    (_with(COMPLETED, "tenantid", None), "tenant_id: is required"),
    (_with(COMPLETED, "tenantid", "x" * 129), "tenant_id"),
    (_with(COMPLETED, "type", None), "type: is required"),
    (_with(COMPLETED, "type", "build.exploded"), "'build.exploded' is not known"),
    (_with(COMPLETED, "time", None), "time: is required"),
    (_with(COMPLETED, "time", "yesterday"), "data"),
    (_with(COMPLETED, "time", "0001-01-01T00:00:00Z"), "time: must be a time between"),
    (_with(COMPLETED, "data", None), "data: is required"),
    (_with(COMPLETED, "data", "text"), "data: is required"),
    (_with(COMPLETED, "data.buildId", None), "data.build_id: is required"),
    (_with(COMPLETED, "data.buildId", "x\0"), "NUL"),
    (_with(COMPLETED, "data.repository", ""), "data.repository: is required"),
    (_with(COMPLETED, "data.pipeline", "x" * 257), "data.pipeline"),
    (_with(COMPLETED, "data.outcome", None), "data.outcome: is required"),
    (_with(COMPLETED, "data.outcome", "BUILD_OUTCOME_UNSPECIFIED"), "data.outcome"),
    (_with(COMPLETED, "data.outcome", 99), "data.outcome"),
    (_with(COMPLETED, "data.outcome", "SPLENDID"), "SPLENDID"),
    (_with(COMPLETED, "data.queuedTime", None), "data.queued_time: is required"),
    (_with(COMPLETED, "data.completedTime", None), "data.completed_time: is required"),
    (_with(COMPLETED, "data.completedTime", "2026-02-28T23:59:59Z"), "must not be before queued_time"),
    (_with(COMPLETED, "data.completedTime", FUTURE), "must not be in the future"),
    (_with(COMPLETED, "data.duration", "-1s"), "must not be negative"),
    (_with(COMPLETED, "data.duration", "102s"), "must not be longer than"),
    (_with(COMPLETED, "data.duration", "NaNs"), "data"),
    (_with(COMPLETED, "data.duration", 12), "data"),
    (_with(COMPLETED, "data.waitingDuration", "-0.5s"), "must not be negative"),
    (_with(COMPLETED, "data.attemptCount", 0), "data.attempt_count"),
    (_with(COMPLETED, "data.jobCount", -1), "data.job_count"),
    (_with(COMPLETED, "data.jobCount", 1 << 40), "data"),
    (_with(COMPLETED, "data.colour", "red"), "colour"),
    (_with(QUEUED, "data.context", None), "data.context: is required"),
    (_with(QUEUED, "data.context.queuedTime", None), "data.context.queued_time: is required"),
    (_with(QUEUED, "data.context.queuedTime", FUTURE), "must not be in the future"),
    (_with(QUEUED, "data.context.change.addedLineCount", -3), "data.context.change.added_line_count"),
    (_with(QUEUED, "data.context.repositoryState", {"testLinesPerThousand": "NaN"}), "finite"),
    (_with(QUEUED, "data.context.repositoryState", {"testLinesPerThousand": "Infinity"}), "finite"),
    (_with(QUEUED, "data.context.change.fileExtensions", [".x"] * 65), "file_extensions"),
    (_with(QUEUED, "data.context.branch", "a\0"), "NUL"),
    (_with(QUEUED, "data.context.repositoryState", {"testLinesPerThousand": 1e400}), "Infinity is not JSON"),
    (_with(QUEUED, "data.context.repositoryState", {"testLinesPerThousand": float("nan")}), "NaN is not JSON"),
]


@pytest.mark.parametrize(("line", "reason"), INVALID, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(INVALID)])
def test_an_invalid_event_is_rejected_with_the_reason(line: bytes, reason: str) -> None:
    rejected = parse(line)
    assert isinstance(rejected, Rejected)
    assert reason in rejected.reason
    assert len(rejected.reason) <= 500
    assert len(rejected.payload) <= MAXIMUM_EVENT_BYTES


def test_all_of_them_are_kept_as_dead_letters_and_the_good_ones_stored(warehouse: psycopg.Connection) -> None:
    lines = [line for line, _ in INVALID]
    good = [completed_event(BUILD), queued_event(BUILD)]
    result = ingest(warehouse, [*lines, *good])
    assert (result.received, result.stored, result.dead_letter_count) == (len(lines) + 2, 2, len(lines))
    letters = dead_letters.find(warehouse, limit=1000)
    assert len(letters) == len(lines)
    whole = {letter.payload for letter in letters if not letter.truncated}
    assert whole == {line for line in lines if len(line) <= MAXIMUM_EVENT_BYTES}
    assert all(letter.text and letter.reason for letter in letters if letter.payload)
    # The same file again: nothing is kept twice.
    again = ingest(warehouse, [*lines, *good])
    assert (again.stored, again.duplicates, again.dead_letter_count) == (0, 2, len(lines))
    assert len(dead_letters.find(warehouse, limit=1000)) == len(lines)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["id", "type", "data", "time", "tenantid", "source", "context"]), inner
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
@settings(max_examples=300)
def test_nothing_makes_it_raise(line: bytes) -> None:
    rejected = parse(line)
    assert isinstance(rejected, Rejected)
    for text in (rejected.reason, rejected.tenant_id, rejected.source, rejected.event_id):
        assert "\0" not in text
        text.encode()


def _proto(message: Any, **changes: Any) -> CloudEvent:
    event = CloudEvent(id="1", source="/ci", type="build.completed", tenant_id="acme", **changes)
    event.time.FromDatetime(START)
    if message is not None:
        event.proto_data.Pack(message)
    return event


def test_the_protobuf_form_equals_the_json_form() -> None:
    of_json = parse(completed_event(BUILD, event_id="1"))
    assert isinstance(of_json, Event)
    event = _proto(of_json.data)
    event.time.FromDatetime(of_json.time)
    assert parse(event) == of_json
    text = CloudEvent()
    text.CopyFrom(event)
    text.text_data = json.dumps(COMPLETED["data"])
    assert parse(text) == of_json


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (_proto(None), "data: is required"),
        (_proto(BuildQueued(build_id="b")), "must be a conductor.events.v1.BuildCompleted"),
        (_proto(BuildCompleted(build_id="b")), "is required"),
        (_proto(None, proto_data=AnyMessage(type_url="x/conductor.events.v1.BuildCompleted", value=b"\xff")), "data"),
        (_proto(None, text_data="{"), "not JSON"),
        (_proto(None, text_data="[]"), "must be a JSON object"),
        (_proto(None, text_data='{"jobCount": NaN}'), "NaN is not JSON"),
        (CloudEvent(), "is required"),
        (_proto(None, text_data="x" * MAXIMUM_EVENT_BYTES), "larger than"),
    ],
)
def test_an_invalid_protobuf_event_is_rejected(event: CloudEvent, reason: str, warehouse: psycopg.Connection) -> None:
    rejected = parse(event)
    assert isinstance(rejected, Rejected)
    assert reason in rejected.reason
    assert ingest(warehouse, [event], "acme").dead_letter_count == 1
    [letter] = dead_letters.find(warehouse)
    assert letter.text or event == CloudEvent()
    assert letter.truncated or letter.incoming == event


def test_requeued_letters_are_taken_in_once_they_can_be(warehouse: psycopg.Connection) -> None:
    ahead = Build("b2", datetime.now(UTC) + timedelta(days=30), None)
    ingest(warehouse, [queued_event(ahead), b"never"])
    result, last = requeue(warehouse)
    assert (result.received, result.stored, result.dead_letter_count) == (2, 0, 2)
    # What was ahead of its time a month ago is not any more.
    past = queued_event(Build("b2", START, None))
    warehouse.execute("UPDATE dead_letters SET payload = %s WHERE tenant_id = 'acme'", (past,))
    result, last = requeue(warehouse, limit=1)
    assert (result.stored, result.dead_letter_count) == (1, 0)
    result, last = requeue(warehouse, after=last or 0)
    assert (result.stored, result.dead_letter_count) == (0, 1)
    assert requeue(warehouse, after=last or 0)[1] is None
    assert [letter.payload for letter in dead_letters.find(warehouse)] == [b"never"]
    assert warehouse.execute("SELECT build_id FROM builds").fetchall() == [("b2",)]


LINES = [completed_event(BUILD), b"garbage", queued_event(BUILD)]


@pytest.mark.parametrize(
    "content",
    [
        b"\n".join(LINES),
        b"\r\n\r\n".join(LINES) + b"\r\n",
        b"\xef\xbb\xbf" + b"\n".join(LINES),
        gzip.compress(b"\n".join(LINES)),
        gzip.compress(LINES[0] + b"\n") + gzip.compress(b"\n".join(LINES[1:])),
    ],
    ids=["lines", "crlf-blank-lines", "bom", "gzip", "two-gzip-members"],
)
def test_files_are_read_line_by_line(content: bytes) -> None:
    seen: list[int] = []
    assert list(read_events(io.BytesIO(content), seen.append)) == LINES
    assert seen[-1] == len(content)


def test_an_array_is_read_item_by_item() -> None:
    content = b" [" + b",\n".join([LINES[0], b'"garbage"', LINES[2]]) + b"]"
    first, garbage, last = read_events(io.BytesIO(content))
    assert (parse(first), parse(last)) == (parse(LINES[0]), parse(LINES[2]))
    assert isinstance(parse(garbage), Rejected)
    assert list(read_events(io.BytesIO(b""))) == []


def test_an_endless_line_is_cut() -> None:
    content = b"x" * (3 * MAXIMUM_TEST_EVENT_BYTES) + b"\n" + LINES[0]
    long, good = read_events(io.BytesIO(content))
    assert len(long) == MAXIMUM_TEST_EVENT_BYTES + 1
    assert "larger than" in parse(long).reason  # type: ignore[union-attr]
    assert good == LINES[0]


@pytest.mark.parametrize("content", [gzip.compress(b"\n".join(LINES * 100))[:-20], b"[1, 2", b"[" * 100_000])
def test_a_damaged_file_is_told(content: bytes) -> None:
    with pytest.raises(UnreadableFile):
        list(read_events(io.BytesIO(content)))


def test_the_examples_of_the_documentation_are_taken() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    examples = [block.partition("```")[0].encode() for block in text.split("```json\n")[1:]]
    events = [parse(example) for example in examples]
    own = [*EVENT_TYPES, "build.completed", "test.completed"]  # the last two are made of CDEvents
    assert [event.type for event in events if isinstance(event, Event)] == own
