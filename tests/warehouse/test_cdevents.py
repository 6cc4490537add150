"""CDEvents are taken in as events of the catalogue."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor.events.v1.build_pb2 import BuildOutcome
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.test_pb2 import TestOutcome
from conductor_warehouse.events import Event, Rejected, parse
from conductor_warehouse.ingestion import ingest

TIME = "2026-03-02T09:41:00Z"


def cdevent(predicate: str, content: Any, *, custom: Any = None, version: str = "0.2.0", **subject: Any) -> bytes:
    kind = f"dev.cdevents.{predicate}.{version}"
    context = {"version": "0.4.1", "id": "e1", "source": "https://ci.example", "type": kind, "timestamp": TIME}
    data: dict[str, Any] = {"context": context, "subject": {"id": "run-1", "content": content, **subject}}
    if custom is not None:
        data["customData"] = custom
    return json.dumps(
        {
            "specversion": "1.0",
            "id": "e1",
            "source": "https://ci.example",
            "type": kind,
            "time": TIME,
            "tenantid": "acme",
            "data": data,
        }
    ).encode()


def pipeline_run(outcome: str | None = "success", **more: Any) -> bytes:
    content = {"pipelineName": "test", "uri": "https://ci.example/run-1", "errors": "none"}
    return cdevent("pipelinerun.finished", content if outcome is None else content | {"outcome": outcome}, **more)


def taken(line: bytes) -> Event:
    event = parse(line)
    assert isinstance(event, Event), event
    return event


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0-draft"])
@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("success", BuildOutcome.BUILD_OUTCOME_SUCCESS),
        ("failure", BuildOutcome.BUILD_OUTCOME_FAILURE),
        ("cancel", BuildOutcome.BUILD_OUTCOME_CANCELLED),
        ("error", BuildOutcome.BUILD_OUTCOME_OTHER),
        ("something new", BuildOutcome.BUILD_OUTCOME_OTHER),
    ],
)
def test_a_finished_pipeline_run_is_a_completed_build(outcome: str, expected: int, version: str) -> None:
    event = taken(pipeline_run(outcome, version=version))
    assert (event.type, event.event_id, event.tenant_id) == ("build.completed", "e1", "acme")
    build = event.data
    assert (build.build_id, build.repository, build.pipeline) == ("run-1", "https://ci.example", "test")
    assert build.outcome == expected
    assert build.queued_time == build.completed_time
    assert not build.HasField("duration")


def test_what_cdevents_have_no_field_for_is_told_beside() -> None:
    told = {"repository": "shop", "branch": "main", "queuedTime": "2026-03-02T09:30:00Z", "duration": "655.5s"}
    build = taken(pipeline_run(custom={"conductor": told, "vendor": {"x": 1}})).data
    assert (build.repository, build.branch, build.duration.seconds) == ("shop", "main", 655)
    assert taken(pipeline_run(source="https://other")).data.repository == "https://other"
    # Others' custom data may be anything.
    assert taken(pipeline_run(custom="YWJj")).data.repository == "https://ci.example"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("pass", TestOutcome.TEST_OUTCOME_PASSED),
        ("fail", TestOutcome.TEST_OUTCOME_FAILED),
        ("error", TestOutcome.TEST_OUTCOME_ERROR),
        ("cancel", TestOutcome.TEST_OUTCOME_SKIPPED),
    ],
)
def test_a_finished_suite_is_a_test_run(outcome: str, expected: int) -> None:
    content = {"outcome": outcome, "reason": "why", "environment": {"id": "dev"}, "testSuite": {"id": "s", "name": "n"}}
    event = taken(cdevent("testsuiterun.finished", content))
    assert (event.type, event.data.run_id) == ("test.completed", "run-1")
    [result] = event.data.results
    assert (result.test_id, result.outcome, result.failure_message) == ("n", expected, "why")
    told = {"results": [{"testId": f"t{n}", "outcome": "TEST_OUTCOME_PASSED"} for n in range(3)]}
    event = taken(cdevent("testsuiterun.finished", content, custom={"conductor": told}))
    assert [result.test_id for result in event.data.results] == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (pipeline_run(None), "data.outcome"),
        (cdevent("pipelinerun.finished", {"outcome": "success"}), "data.pipeline"),
        (cdevent("pipelinerun.finished", "text"), "content: is required"),
        (pipeline_run(custom={"conductor": 3}), "customData.conductor: must be a JSON object"),
        (pipeline_run(custom={"conductor": {"durations": "3s"}}), "durations"),
        (pipeline_run(id=""), "data.build_id"),
        (pipeline_run(id=7), "build"),
        (cdevent("testsuiterun.finished", {"outcome": "unheard of"}), "data.results[0].outcome"),
        (cdevent("pipelinerun.started", {"pipelineName": "test"}), "is not known"),
        (cdevent("pipelinerun.finished", {}, version="x"), "is not known"),
    ],
)
def test_one_that_lacks_something_is_a_dead_letter_that_says_what(line: bytes, reason: str) -> None:
    event = parse(line)
    assert isinstance(event, Rejected)
    assert reason in event.reason
    assert (event.tenant_id, event.event_id, event.payload) == ("acme", "e1", line)


def test_by_wire_and_by_file_it_is_the_same_build(warehouse: psycopg.Connection) -> None:
    line = pipeline_run()
    content = json.loads(line)
    message = CloudEvent(
        id="e1",
        source="https://ci.example",
        spec_version="1.0",
        type=content["type"],
        tenant_id="acme",
        text_data=json.dumps(content["data"]),
    )
    message.time.FromJsonString(TIME)
    assert ingest(warehouse, [line]).stored == 1
    assert ingest(warehouse, [message], "acme").duplicates == 1
    assert message.type == content["type"]
    assert warehouse.execute("SELECT event_type FROM inbox").fetchall() == [("build.completed",)]
    assert warehouse.execute("SELECT build_id, duration FROM completed_builds").fetchall() in ([], [("run-1", None)])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["context", "subject", "content", "customData", "conductor", "id", "outcome", "testSuite"]
                ),
                inner,
            )
        ),
    )
)
def test_nothing_makes_it_raise(data: Any) -> None:
    for predicate in ("pipelinerun.finished", "testsuiterun.finished"):
        line = json.loads(cdevent(predicate, {}))
        line["data"] = data
        assert isinstance(parse(json.dumps(line).encode()), Event | Rejected)
