"""S3: the declared policy for numbers and text that are out of the ordinary (docs/events.md, docs/other-clients.md)."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.inference.v2.inference_service_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataRequest
from conductor.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from conductor_client import ConductorClient, InvalidRequest
from faults.scene import Scene
from security.attacked import bearer, channel, undocumented
from security.test_boundaries import MINE, context

NAN, INFINITY, DENORMAL = math.nan, math.inf, 5e-324
RATIO = "test_lines_per_thousand"


def finite(response: ModelInferResponse) -> bool:
    """Whether every number that is answered is one."""
    contents = [np.frombuffer(content, "<f4") for content in response.raw_output_contents]
    contents += [np.asarray(output.contents.fp32_contents) for output in response.outputs]
    return all(np.isfinite(numbers).all() for numbers in contents)


async def answered(client: ConductorClient, **fields: Any) -> None:
    answer = await client.predict_build_duration(MINE, context(**fields))
    seconds = [duration.total_seconds() for duration in (answer.lower, answer.median, answer.upper)]
    assert all(map(math.isfinite, seconds))
    assert 0 <= seconds[0] <= seconds[1] <= seconds[2]


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, -1.0, -DENORMAL])
async def test_numbers_that_are_refused(scene: Scene, value: float) -> None:
    async with scene.connect(MINE) as client:
        with pytest.raises(InvalidRequest) as refused:
            await client.predict_build_duration(MINE, context(repository_state={RATIO: value}))
        assert [violation.field for violation in refused.value.field_violations] == [f"build.repository_state.{RATIO}"]


async def test_numbers_that_are_answered_with_numbers(scene: Scene) -> None:
    async with scene.connect(MINE) as client:
        for value in (0.0, -0.0, DENORMAL, sys.float_info.min, 1e300, sys.float_info.max):
            await answered(client, repository_state={RATIO: value})
        for count in (0, 1, 2**31, 2**53 + 1, 2**63 - 1):
            await answered(client, change={"added_line_count": count, "added_file_count": count})


@pytest.mark.parametrize(
    "text",
    ["caf\u00e9", "cafe\u0301", "\u202egnp.exe", "a\u200bb", "\N{GRINNING FACE}" * 256, " ", "\u2028", "\x01\x1b[2J",
     "\ufeffx", "*?[", "../../etc/passwd", "%s%n", "${jndi:ldap://x}", "'; --"],
)  # fmt: skip
async def test_text_is_taken_as_it_is(scene: Scene, text: str) -> None:
    """Names are compared code point by code point: nothing is normalised, cut or filled in."""
    async with scene.connect(MINE) as client:
        await answered(client, branch=text, actor=text, repository=text, pipeline=text)
        for broken in (f"{text}\0", text * 257):
            with pytest.raises(InvalidRequest):
                await client.predict_build_duration(MINE, context(branch=broken))


def test_tensors(scene: Scene) -> None:
    """NaN is "not known", infinity is refused, and what is answered is a number whatever was asked."""
    metadata = bearer(scene, MINE)
    with channel(scene) as calls:
        stub = GRPCInferenceServiceStub(calls)
        model = stub.ModelMetadata(ModelMetadataRequest(name="build-duration"), metadata=metadata)
        columns = model.inputs[0].shape[1]

        def ask(*values: float) -> str:
            request = ModelInferRequest(model_name="build-duration")
            tensor = request.inputs.add(name=model.inputs[0].name, datatype="FP32", shape=[1, columns])
            tensor.contents.fp32_contents.extend(values)
            try:
                assert finite(stub.ModelInfer(request, timeout=30, metadata=metadata))
            except grpc.RpcError as error:
                assert not undocumented(error)
                return error.code().name
            return "OK"

        largest, smallest = float(np.finfo(np.float32).max), 1e-45
        for value in (0.0, -0.0, smallest, -smallest):
            assert ask(*[value] * columns) == "OK"
        assert "OK" in {ask(*[1.0] * at, NAN, *[1.0] * (columns - at - 1)) for at in range(columns)}
        assert ask(*[NAN] * columns) in ("OK", "INVALID_ARGUMENT")  # the latter where the model needs one of them
        for value in (largest, -largest, 1e30, -1e30):
            assert ask(*[value] * columns) in ("OK", "INTERNAL")
        for value in (INFINITY, -INFINITY):
            assert ask(*[1.0] * (columns - 1), value) == "INVALID_ARGUMENT"


_NOW = datetime.now(UTC)
_QUEUED = {
    "buildId": "odd",
    "context": {"repository": "r", "pipeline": "p", "queuedTime": _NOW.strftime("%Y-%m-%dT%H:%M:%SZ")},
}


def _spelt(old: str, new: str) -> str:
    return json.dumps(_QUEUED).replace(old, new)


EVENTS = {
    "half of a pair as a value": (_spelt('"r"', '"\\ud800"'), "surrogate"),
    "half of a pair as a name": ('{"\\ud800": 1}', "surrogate"),
    "a NUL as a value": (_spelt('"r"', '"a\\u0000"'), "NUL"),
    "a NUL as a name": ('{"a\\u0000": 1}', "no field"),
    "NaN": (_spelt('"p"', "NaN"), "NaN is not JSON"),
    "infinity": (_spelt('"p"', "-Infinity"), "Infinity is not JSON"),
    "a number without end": (_spelt('"p"', "9" * 5_000), "digits"),
    "a number beyond all": (_spelt('"pipeline"', '"change": {"addedLineCount": 1e400}, "pipeline"'), "addedLineCount"),
    "lists in lists": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "objects in objects": ('{"context": ' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    "a list that is not closed": ("[" * 100_000, "nested too deeply"),
    "hundreds of thousands of empty objects": (
        '{"results": [' + "{}," * 200_000 + "{}]}", ""
    ),
    "nothing": ("", "not JSON"),
    "null": ("null", "JSON object"),
}  # fmt: skip


async def test_events_that_are_dead_letters(scene: Scene) -> None:
    """Each with a reason, none an error of the call: what can't be taken in must not come again and again."""
    async with scene.connect("odd-texts", scene.platform.events_target) as client:
        events = []
        for number, (text, _) in enumerate(EVENTS.values()):
            event = CloudEvent(
                id=f"odd-{number}", source="/odd", spec_version="1.0", type="build.queued", text_data=text
            )
            event.tenant_id = "odd-texts"
            event.time.FromDatetime(_NOW)
            events.append(event)
        for event, (name, (_, reason)) in zip(events, EVENTS.items(), strict=True):
            told = await client.publish_events("odd-texts", [event], timeout_seconds=60)
            assert told.stored == 0, name
            [letter] = told.dead_letters
            assert reason in letter.reason, name
            assert "set_int_max_str_digits" not in letter.reason


def test_the_check_finds_an_answer_that_is_no_number() -> None:
    """The planted bug: a model's NaN is handed on."""
    for content in (NAN, INFINITY):
        typed, raw = ModelInferResponse(), ModelInferResponse()
        typed.outputs.add().contents.fp32_contents.append(content)
        raw.raw_output_contents.append(np.array([1.0, content], "<f4").tobytes())
        assert not finite(typed)
        assert not finite(raw)
    assert finite(ModelInferResponse(raw_output_contents=[np.array([1.0], "<f4").tobytes()]))
