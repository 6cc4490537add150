"""A valid request of every method of every service, and ways to spoil one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st

from conductor.events.v1 import event_service_pb2
from conductor.inference.v2 import inference_service_pb2
from conductor.model.v1 import model_service_pb2
from conductor.prediction.v1 import prediction_service_pb2
from conductor.testing.v1 import test_intelligence_service_pb2

_BUILD = {
    "repository": "fuzzer/service",
    "pipeline": "ci",
    "branch": "main",
    "change": {"added_line_count": 3, "file_extensions": ["py", "md"]},
}
_DIFF = b"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a\n+b\n"
_EVENT = {
    "id": "1",
    "source": "/fuzzer",
    "spec_version": "1.0",
    "type": "build.queued",
    "time": {"seconds": 1_700_000_000},
    "text_data": '{"buildId":"1","context":{"repository":"r","pipeline":"ci","queuedTime":"2026-01-01T00:00:00Z"}}',
}


def _content(tenant_id: str) -> Mapping[str, Mapping[str, Any]]:
    """What a valid message holds, beside its tenant, predictor and name."""
    tensor = {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1.0, 2.0]}}
    predict = {"tenant_id": tenant_id, "build": _BUILD}
    run = {"repository": "fuzzer/service", "test_ids": ["test_a", "test_b"], "diff": _DIFF}
    return {
        "PredictBuildDurationRequest": {"build": _BUILD},
        "BatchPredictBuildDurationsRequest": {"requests": [predict] * 3},
        "StreamBuildDurationPredictionsRequest": {"items": [{"id": 1, "request": predict}]},
        "PredictTestFailuresRequest": {"run": run, "explanation_count": 1},
        "SelectTestsRequest": {"run": run, "miss_rate": 0.05, "must_run": ["test_*"]},
        "PrioritizeTestsRequest": {"run": {**run, "diff": b"", "changed_files": [{"path": "a.py", "kind": 2}]}},
        "ListFlakyTestsRequest": {"repository": "fuzzer/service", "states": [1], "page_size": 10},
        "ClassifyFailureRequest": {"run": {"repository": "fuzzer/service"}, "test_id": "test_a", "attempt_count": 2},
        "ModelInferRequest": {"model_name": "build-duration", "inputs": [tensor]},
        "PublishEventsRequest": {"events": [{**_EVENT, "tenant_id": tenant_id}]},
        "PromoteModelRequest": {"version": "v1", "weight": 0.5},
        "WithdrawModelRequest": {"channel": "canary", "detail": "why"},
        "ServerReflectionRequest": {"list_services": ""},
        "HealthCheckRequest": {"service": ""},
    }


def valid_requests(tenant_id: str) -> tuple[dict[str, Message], dict[str, Message]]:
    """By full method name: those of the prediction server, and those of the event service."""
    content = _content(tenant_id)
    found: list[dict[str, Message]] = []
    ours = (prediction_service_pb2, test_intelligence_service_pb2, model_service_pb2, inference_service_pb2)
    for files in ((*ours, health_pb2, reflection_pb2), (event_service_pb2, health_pb2, reflection_pb2)):
        requests = {}
        for file in files:
            for service in file.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    kind = GetMessageClass(method.input_type)
                    fields = kind.DESCRIPTOR.fields_by_name
                    named = {"tenant_id": tenant_id, "predictor": "build-duration", "name": "build-duration"}
                    usual = {name: value for name, value in named.items() if name in fields}
                    request = kind(**usual, **content.get(kind.DESCRIPTOR.name, {}))
                    requests[f"/{service.full_name}/{method.name}"] = request
        found.append(requests)
    return found[0], found[1]


@st.composite
def spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that begin as a valid request."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(result)))
        match draw(st.sampled_from(("flip", "cut", "insert", "double", "field", "random"))):
            case "flip" if result:
                result[at % len(result)] ^= draw(st.integers(1, 255))
            case "cut":
                del result[at : at + draw(st.integers(1, 16))]
            case "insert":
                result[at:at] = draw(st.binary(max_size=32))
            case "double":
                result[at:at] = result[: draw(st.integers(0, 64))] * draw(st.integers(1, 50))
            case "field":  # a field of any number and kind, that its message may not have
                result += bytes([draw(st.integers(0, 127))]) + draw(st.binary(max_size=16))
            case _:
                result = bytearray(draw(st.binary(max_size=200)))
    return bytes(result)
