"""The async client."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Self, TypeVar, Unpack

import grpc

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceStub
from conductor_client._aio_status import ServerStatus
from conductor_client.asking import ask
from conductor_client.build_duration_stream import BuildDurationStream
from conductor_client.builds import BuildFields
from conductor_client.connection import Attempts, Certificate, ConnectionSettings, Criticality, TokenSource
from conductor_client.errors import ConductorError, error_from_rpc
from conductor_client.events import Batcher, PublishedEvents, published_events, requests
from conductor_client.predictions import BuildDurationPrediction, build_duration_prediction, build_duration_results
from conductor_client.requests import batch_request, single_request
from conductor_client.testing.async_calls import AsyncTestCalls

Answer = TypeVar("Answer")


class ConductorClient(AsyncTestCalls):
    """Asks a Conductor server, from asyncio. Keep one for the life of the program; it is safe to share among tasks.

    ::

        async with ConductorClient.connect("conductor.internal:443", token=token) as conductor:
            answer = await conductor.predict_build_duration("acme", repository="octocat/hello", pipeline="ci")
            print(answer.median, answer.lower, answer.upper)
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._channel = settings.open_async()
        self._predictions = PredictionServiceStub(self._channel)
        self._tests = TestIntelligenceServiceStub(self._channel)
        self._events = EventServiceStub(self._channel)

    @classmethod
    def connect(
        cls,
        target: str,
        *,
        token: TokenSource | None = None,
        root_certificates: Certificate | None = None,
        insecure: bool = False,
        timeout_seconds: float = 1.0,
        criticality: Criticality | None = None,
    ) -> Self:
        """Connect lazily to ``host:port``; see `ConnectionSettings` for the rest and for what the arguments mean."""
        return cls(
            ConnectionSettings(
                target,
                token=token,
                root_certificates=root_certificates,
                insecure=insecure,
                timeout_seconds=timeout_seconds,
                criticality=criticality,
            )
        )

    async def predict_build_duration(
        self,
        tenant_id: str,
        build: BuildContext | None = None,
        *,
        contribution_count: int | None = None,
        timeout_seconds: float | None = None,
        **fields: Unpack[BuildFields],
    ) -> BuildDurationPrediction:
        """Predict how long a build will take if it passes.

        Tell the build as a message or by its fields. ``contribution_count``: how many contributions to explain the
        prediction with, 0 to 32, 5 if absent. Raises ConductorError.
        """
        request = single_request(tenant_id, build, fields, contribution_count)
        response = await ask(self._settings, self._predictions.PredictBuildDuration, request, timeout_seconds)
        return build_duration_prediction(response)

    async def batch_predict_build_durations(
        self,
        tenant_id: str,
        builds: Iterable[BuildContext | BuildFields],
        *,
        contribution_count: int | None = None,
        timeout_seconds: float | None = None,
    ) -> list[BuildDurationPrediction | ConductorError]:
        """Predict for many builds of a tenant, at most 1,024, in order. An item that fails is its error, not raised.

        Raises ConductorError where the whole call fails.
        """
        request = batch_request(tenant_id, builds, contribution_count)
        response = await ask(self._settings, self._predictions.BatchPredictBuildDurations, request, timeout_seconds)
        return build_duration_results(response)

    def build_duration_stream(self) -> BuildDurationStream:
        """A stream that carries many predictions, for who asks often: under load each costs a third of a call.

        ::

            async with conductor.build_duration_stream() as stream:
                answer = await stream.predict("acme", repository="octocat/hello", pipeline="ci")
        """
        return BuildDurationStream(self._settings, self._predictions.StreamBuildDurationPredictions)

    async def publish_events(
        self,
        tenant_id: str,
        events: Iterable[CloudEvent] | AsyncIterable[CloudEvent],
        *,
        timeout_seconds: float | None = None,
    ) -> PublishedEvents:
        """Publish events, as many as there are; returns after the last one's database commit.

        Publishing again after an error is safe: what was stored before counts as a duplicate. Raises ConductorError.
        """
        attempts = Attempts(self._settings.publish_timeout_seconds if timeout_seconds is None else timeout_seconds)
        failures: list[Exception] = []
        stream = _requests(tenant_id, events, failures)
        call = self._events.PublishEvents(stream, timeout=attempts.timeout(), metadata=self._settings.metadata())
        server_status = ServerStatus(call)
        try:
            return published_events(await call)
        except grpc.RpcError as error:
            raise error_from_rpc(await server_status.of(error)) from error
        except asyncio.CancelledError:
            if failures:  # gRPC cancels the call when the iterator raises; nobody cancelled us
                raise failures[0] from None
            raise

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _requests(
    tenant_id: str, events: Iterable[CloudEvent] | AsyncIterable[CloudEvent], failures: list[Exception]
) -> AsyncIterator[PublishEventsRequest]:
    """The stream of requests for ``events``; what they raise is kept in ``failures``, since gRPC only logs it."""
    batcher = Batcher(tenant_id)
    try:
        if isinstance(events, AsyncIterable):
            async for event in events:
                if request := batcher.add(event):
                    yield request
            if request := batcher.flush():
                yield request
        else:
            for request in requests(tenant_id, events):
                yield request
    except Exception as error:
        failures.append(error)
        raise
