"""CDEvents (https://cdevents.dev) that are taken in as well, and the data of the event that each is made into.

A CDEvent comes in the structured form of its CloudEvents binding: the whole CDEvent is the data of a CloudEvent that
carries its id, source, type and timestamp. What CDEvents have no field for, such as the repository, its sender can tell
in ``customData.conductor``, in the JSON form of the event that it is made into; what is told there counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PREFIX = "dev.cdevents."
_TYPE = re.compile(r"dev\.cdevents\.(pipelinerun|testsuiterun)\.finished\.[0-9]+\..+").fullmatch
_TRANSLATED = {"pipelinerun": "build.completed", "testsuiterun": "test.completed"}
_BUILD_OUTCOMES = {"success": "SUCCESS", "failure": "FAILURE", "cancel": "CANCELLED", "cancelled": "CANCELLED"}
_TEST_OUTCOMES = {"pass": "PASSED", "fail": "FAILED", "error": "ERROR", "cancel": "SKIPPED"}


def translated_type(event_type: str) -> str | None:
    """The type of the event that a CDEvent of this type, of whatever version, is made into; None for all others."""
    found = _TYPE(event_type) if event_type.startswith(_PREFIX) else None
    return _TRANSLATED[found[1]] if found else None


def translate(event_type: str, cdevent: Mapping[str, Any], time: str) -> dict[str, Any]:
    """The data of the event that a CDEvent is made into, in its JSON form, not checked against any rule.

    Args:
        event_type: the CDEvent's type, for which :func:`translated_type` knows a translation.
        cdevent: context, subject and custom data.
        time: when it finished, RFC 3339.

    Raises:
        ValueError: it is not built like a CDEvent.
    """
    context, subject = _part(cdevent, "context"), _part(cdevent, "subject")
    content = _part(subject, "content")
    place = subject.get("source") or context.get("source")
    translate_content = _build if translated_type(event_type) == "build.completed" else _test_run
    custom = cdevent.get("customData")
    told = custom.get("conductor", {}) if isinstance(custom, dict) else {}
    if not isinstance(told, dict):
        raise ValueError("customData.conductor: must be a JSON object")
    known = {"repository": place, "completedTime": time, **translate_content(subject.get("id"), content, time), **told}
    return {name: value for name, value in known.items() if value is not None}


def _build(run_id: Any, content: Mapping[str, Any], time: str) -> dict[str, Any]:
    outcome = content.get("outcome")
    return {
        "buildId": run_id,
        "pipeline": content.get("pipelineName"),
        # A CDEvent does not tell when the run began. Without a duration the build is no example of how long one takes.
        "queuedTime": time,
        "outcome": outcome and f"BUILD_OUTCOME_{_BUILD_OUTCOMES.get(str(outcome), 'OTHER')}",
    }


def _test_run(run_id: Any, content: Mapping[str, Any], _: str) -> dict[str, Any]:
    """The suite is the one test that is told of: CDEvents report its tests one by one, by other events."""
    suite = content.get("testSuite")
    name = (suite.get("name") or suite.get("id")) if isinstance(suite, dict) else None
    # "status" in drafts of the specification.
    outcome = content.get("outcome", content.get("status"))
    result = {
        "testId": name or "test suite",
        "outcome": outcome and f"TEST_OUTCOME_{_TEST_OUTCOMES.get(str(outcome), 'UNSPECIFIED')}",
        "failureMessage": content.get("reason"),
    }
    return {"runId": run_id, "results": [{key: value for key, value in result.items() if value is not None}]}


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = whole.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"{name}: is required, as a JSON object")
    return part
