"""The blocking client."""

from collections.abc import Iterable, Iterator
from typing import Self, TypeVar, Unpack

import grpc

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceStub
from conductor_client.asking import ask_sync
from conductor_client.builds import BuildFields
from conductor_client.connection import Attempts, Certificate, ConnectionSettings, Criticality, TokenSource
from conductor_client.errors import ConductorError, error_from_rpc
from conductor_client.events import PublishedEvents, published_events, requests
from conductor_client.predictions import BuildDurationPrediction, build_duration_prediction, build_duration_results
from conductor_client.requests import batch_request, single_request
from conductor_client.testing.sync_calls import SyncTestCalls

Answer = TypeVar("Answer")


class SyncConductorClient(SyncTestCalls):
    """Asks a Conductor server and waits. Keep one for the life of the program; it is safe to share among threads.

    The methods are those of `ConductorClient`, where each is described.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._channel = settings.open_sync()
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

    def predict_build_duration(
        self,
        tenant_id: str,
        build: BuildContext | None = None,
        *,
        contribution_count: int | None = None,
        timeout_seconds: float | None = None,
        **fields: Unpack[BuildFields],
    ) -> BuildDurationPrediction:
        """Predict how long a build will take if it passes. Raises ConductorError."""
        request = single_request(tenant_id, build, fields, contribution_count)
        return build_duration_prediction(
            ask_sync(self._settings, self._predictions.PredictBuildDuration, request, timeout_seconds)
        )

    def batch_predict_build_durations(
        self,
        tenant_id: str,
        builds: Iterable[BuildContext | BuildFields],
        *,
        contribution_count: int | None = None,
        timeout_seconds: float | None = None,
    ) -> list[BuildDurationPrediction | ConductorError]:
        """Predict for many builds of a tenant, at most 1,024, in order. An item that fails is its error, not raised."""
        request = batch_request(tenant_id, builds, contribution_count)
        return build_duration_results(
            ask_sync(self._settings, self._predictions.BatchPredictBuildDurations, request, timeout_seconds)
        )

    def publish_events(
        self, tenant_id: str, events: Iterable[CloudEvent], *, timeout_seconds: float | None = None
    ) -> PublishedEvents:
        """Publish events, as many as there are; returns after the last one's database commit. Raises ConductorError."""
        attempts = Attempts(self._settings.publish_timeout_seconds if timeout_seconds is None else timeout_seconds)
        stream = _Remembering(requests(tenant_id, events))
        try:
            return published_events(
                self._events.PublishEvents(iter(stream), timeout=attempts.timeout(), metadata=self._settings.metadata())
            )
        except grpc.RpcError as error:
            if stream.failure is not None:
                raise stream.failure from None
            raise error_from_rpc(error) from error

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Remembering:
    """An iterable that keeps what its source raised: gRPC reads it in a thread and tells only that it failed."""

    def __init__(self, source: Iterator[PublishEventsRequest]) -> None:
        self._source = source
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[PublishEventsRequest]:
        try:
            yield from self._source
        except Exception as error:
            self.failure = error
            raise
