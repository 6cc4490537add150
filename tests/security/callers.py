"""Every method of a running process, and everyone who might call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.inference.v2 import inference_service_pb2 as inference
from conductor.model.v1 import model_service_pb2 as models
from conductor.prediction.v1 import build_duration_pb2 as durations
from conductor.testing.v1 import (
    failure_verdict_pb2,
    flaky_test_pb2,
    test_failure_pb2,
    test_order_pb2,
    test_selection_pb2,
)
from conductor_client._aio_status import ServerStatus
from rpc.harness import Failure, failure, from_status

Headers = tuple[tuple[str, str], ...]
PREDICTOR = "build-duration"
_PREDICTION, _INFERENCE = "/conductor.prediction.v1.PredictionService", "/inference.GRPCInferenceService"
_MODELS = "/conductor.model.v1.ModelService"
_TESTING = "/conductor.testing.v1.TestIntelligenceService"


async def methods(channel: grpc.aio.Channel, headers: Headers) -> list[str]:
    """Full names of all methods that the process says it has."""

    async def asked() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked(), metadata=headers)
    [answer] = [found async for found in call]
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(service.name) for service in answer.list_services_response.service]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


def _infer(tenant: str) -> Message:
    request = inference.ModelInferRequest(model_name=PREDICTOR)
    request.parameters["tenant_id"].string_param = tenant
    tensor = request.inputs.add(name="inputs", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1.0, 2.0, 3.0, 4.0])
    return request


def _duration(tenant: str) -> durations.PredictBuildDurationRequest:
    return durations.PredictBuildDurationRequest(tenant_id=tenant, build={"repository": "shop/web", "pipeline": "ci"})


_OF_MODEL = {"predictor": PREDICTOR}
_RUN = {"repository": "shop/web"}
REQUESTS: Mapping[str, Callable[[str], Message]] = {
    f"{_PREDICTION}/PredictBuildDuration": _duration,
    f"{_PREDICTION}/BatchPredictBuildDurations": lambda tenant: durations.BatchPredictBuildDurationsRequest(
        tenant_id=tenant, requests=[_duration(tenant)]
    ),
    f"{_PREDICTION}/StreamBuildDurationPredictions": lambda tenant: durations.StreamBuildDurationPredictionsRequest(
        items=[{"id": 1, "request": _duration(tenant)}]
    ),
    f"{_TESTING}/PredictTestFailures": lambda tenant: test_failure_pb2.PredictTestFailuresRequest(
        tenant_id=tenant, run=_RUN
    ),
    f"{_TESTING}/SelectTests": lambda tenant: test_selection_pb2.SelectTestsRequest(
        tenant_id=tenant, run=_RUN, miss_rate=0.05
    ),
    f"{_TESTING}/PrioritizeTests": lambda tenant: test_order_pb2.PrioritizeTestsRequest(tenant_id=tenant, run=_RUN),
    f"{_TESTING}/ListFlakyTests": lambda tenant: flaky_test_pb2.ListFlakyTestsRequest(
        tenant_id=tenant, repository="shop/web"
    ),
    f"{_TESTING}/ClassifyFailure": lambda tenant: failure_verdict_pb2.ClassifyFailureRequest(
        tenant_id=tenant, run=_RUN, test_id="test_it"
    ),
    f"{_INFERENCE}/ServerMetadata": lambda _: inference.ServerMetadataRequest(),
    f"{_INFERENCE}/ModelReady": lambda _: inference.ModelReadyRequest(name=PREDICTOR),
    f"{_INFERENCE}/ModelMetadata": lambda _: inference.ModelMetadataRequest(name=PREDICTOR),
    f"{_INFERENCE}/ModelConfig": lambda _: inference.ModelConfigRequest(name=PREDICTOR),
    f"{_INFERENCE}/ModelInfer": _infer,
    f"{_MODELS}/ListModels": lambda tenant: models.ListModelsRequest(tenant_id=tenant),
    f"{_MODELS}/GetModel": lambda tenant: models.GetModelRequest(tenant_id=tenant, **_OF_MODEL),
    f"{_MODELS}/WatchModels": lambda tenant: models.WatchModelsRequest(tenant_id=tenant),
    f"{_MODELS}/PromoteModel": lambda tenant: models.PromoteModelRequest(
        tenant_id=tenant, version="0123456789abcdef", **_OF_MODEL
    ),
    f"{_MODELS}/RollbackModel": lambda tenant: models.RollbackModelRequest(
        tenant_id=tenant, channel="shadow", **_OF_MODEL
    ),
    f"{_MODELS}/WithdrawModel": lambda tenant: models.WithdrawModelRequest(
        tenant_id=tenant, channel="shadow", **_OF_MODEL
    ),
    "/conductor.events.v1.EventService/PublishEvents": lambda tenant: PublishEventsRequest(tenant_id=tenant),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": lambda _: reflection_pb2.ServerReflectionRequest(
        list_services=""
    ),
}
"""A well-formed request of each method that asks for credentials, about a tenant."""
WITHOUT_TENANT = {method for method, of in REQUESTS.items() if of("a") == of("b")}
"""Methods whose requests name no tenant: they are about the caller's own."""
ITEMS = f"{_PREDICTION}/StreamBuildDurationPredictions"
"""Its messages are nobody's; each item is a request of its own."""


@dataclass(frozen=True)
class Caller:
    """Somebody with credentials: a connection, and what is sent along with each call."""

    name: str
    channel: grpc.aio.Channel
    headers: Headers = ()
    scopes: frozenset[str] = frozenset()
    """What the credentials allow; where ``holds`` is false, what they would if they held."""
    holds: bool = True


async def ask(caller: Caller, method: str, tenant: str) -> Failure | None:
    """What a call is refused with; None for one that was answered."""
    _, service, name = method.split("/")
    descriptor = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    make = getattr(
        caller.channel,
        ("stream" if descriptor.client_streaming else "unary")
        + ("_stream" if descriptor.server_streaming else "_unary"),
    )
    response_type = message_factory.GetMessageClass(descriptor.output_type)
    rpc = make(
        method, request_serializer=lambda m: m.SerializeToString(), response_deserializer=response_type.FromString
    )
    request = REQUESTS[method](tenant)

    async def requests() -> AsyncIterator[Message]:
        yield request

    call = rpc(requests() if descriptor.client_streaming else request, metadata=caller.headers, timeout=30)
    status = ServerStatus(call)
    try:
        if not descriptor.server_streaming:
            await call
            return None
        answer = await call.read()
        if answer is grpc.aio.EOF:
            return failure(await status.of(await _error_of(call)))
        if method == ITEMS and answer.results[0].HasField("error"):
            return from_status(answer.results[0].error)
        call.cancel()
    except grpc.aio.AioRpcError as error:
        return failure(await status.of(error))
    return None


async def _error_of(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), grpc.aio.Metadata(), await call.trailing_metadata(), details=await call.details()
    )
