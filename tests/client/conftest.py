"""A real gRPC server on a free port whose answers a test decides."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from conductor.events.v1.event_service_pb2 import PublishEventsResponse
from conductor.events.v1.event_service_pb2_grpc import EventServiceServicer, add_EventServiceServicer_to_server
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsResponse,
    BatchPredictBuildDurationsResult,
    PredictBuildDurationResponse,
    StreamBuildDurationPredictionsResponse,
)
from conductor.prediction.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from conductor_client import ConductorClient, ConnectionSettings, SyncConductorClient

PATIENCE_SECONDS = 30.0
"""Of clients in tests: what is asserted is not how fast a busy machine is."""


def status(code: grpc.StatusCode, message: str, *details: Message) -> Status:
    """A google.rpc.Status."""
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    return Status(code=code.value[0], message=message, details=packed)


@dataclass
class Refusal:
    """How a server refuses a call."""

    code: grpc.StatusCode
    message: str = "refused"
    details: tuple[Message, ...] = ()
    trailing: tuple[tuple[str, Any], ...] = ()

    def abort(self, context: grpc.ServicerContext) -> None:
        rich = status(self.code, self.message, *self.details).SerializeToString() if self.details else None
        context.set_trailing_metadata(
            (*self.trailing, *((("grpc-status-details-bin", rich),) if rich is not None else ()))
        )
        context.abort(self.code, self.message)


def answer() -> PredictBuildDurationResponse:
    response = PredictBuildDurationResponse()
    response.duration.FromSeconds(320)
    response.interval.lower_duration.FromSeconds(290)
    response.interval.upper_duration.FromSeconds(400)
    response.interval.coverage = 0.9
    provenance = response.provenance
    provenance.prediction_id = "p1"
    provenance.method = 1
    provenance.model_name = "models/build-duration/tenants/acme"
    provenance.model_version = "0123456789abcdef"
    provenance.model_digest = "d" * 64
    provenance.oldest_feature_age.FromSeconds(12)
    provenance.prediction_time.FromSeconds(1_700_000_000)
    for feature, value, seconds in [("branch_builds_v1.last_duration", 310.0, 35), ("tenant_load_v1.queued", None, -4)]:
        contribution = response.contributions.add(feature=feature)
        if value is not None:
            contribution.value = value
        contribution.effect_duration.FromSeconds(seconds)
    return response


@dataclass
class Conductor(PredictionServiceServicer, EventServiceServicer):
    """Answers, after refusing as often as told."""

    refusals: list[Refusal] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    times_left: list[float] = field(default_factory=list)
    response: PredictBuildDurationResponse = field(default_factory=answer)
    batch: Callable[[Any], BatchPredictBuildDurationsResponse] | None = None
    hang: threading.Event | None = None
    received: threading.Event = field(default_factory=threading.Event)
    target: str = ""

    def _receive(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.times_left.append(context.time_remaining())
        self.received.set()
        if self.refusals:
            self.refusals.pop(0).abort(context)
        if self.hang:
            self.hang.wait(10)

    def PredictBuildDuration(self, request, context):  # noqa: N802
        self._receive(request, context)
        return self.response

    def StreamBuildDurationPredictions(self, request_iterator, context):  # noqa: N802
        for message in request_iterator:
            results = [{"id": item.id, **self.result(item)} for item in message.items]
            yield StreamBuildDurationPredictionsResponse(results=results)

    def result(self, item: Any) -> dict[str, Any]:
        if item.request.contribution_count:
            return {"error": status(grpc.StatusCode.INVALID_ARGUMENT, "no")}
        return {"response": self.response}

    def BatchPredictBuildDurations(self, request, context):  # noqa: N802
        self._receive(request, context)
        if self.batch:
            return self.batch(request)
        return BatchPredictBuildDurationsResponse(
            results=[BatchPredictBuildDurationsResult(response=self.response) for _ in request.requests]
        )

    def PublishEvents(self, request_iterator, context):  # noqa: N802
        if self.refusals:
            self._receive(next(request_iterator), context)
        messages = list(request_iterator)
        self._receive(messages, context)
        response = PublishEventsResponse(received_count=sum(len(message.events) for message in messages))
        response.stored_count = response.received_count - 2
        response.duplicate_count = response.dead_letter_count = 1
        letter = response.dead_letters.add(event_id="e1", event_source="s", reason="no type")
        letter.dead_letter_time.FromSeconds(1_700_000_000)
        return response


def start(conductor: Conductor, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> grpc.Server:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    add_PredictionServiceServicer_to_server(conductor, server)
    add_EventServiceServicer_to_server(conductor, server)
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    conductor.target = f"127.0.0.1:{bound}"
    server.start()
    return server


@pytest.fixture
def conductor() -> Iterator[Conductor]:
    """A server without TLS."""
    servicer = Conductor()
    server = start(servicer)
    yield servicer
    if servicer.hang:
        servicer.hang.set()
    server.stop(1).wait(5)


class Sync:
    """The async client's face on the sync client, so that every case runs through both."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = SyncConductorClient(settings)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self._client.close()

    def __getattr__(self, name):
        async def call(*arguments, **named):
            return await asyncio.to_thread(getattr(self._client, name), *arguments, **named)

        return call


@pytest.fixture(params=[ConductorClient, Sync], ids=["async", "sync"])
def connect(request, conductor):
    """Connect the client of the case to the server of the test."""

    def made(target: str = conductor.target, **settings: Any) -> ConductorClient | Sync:
        return request.param(
            ConnectionSettings(target, **{"insecure": True, "timeout_seconds": PATIENCE_SECONDS} | settings)
        )

    return made
