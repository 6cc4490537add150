"""What is measured on: an embedded platform with simulated builds, models trained on them, and requests to send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    PredictBuildDurationRequest,
    PredictBuildDurationResponse,
)
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor.prediction.v1.provenance_pb2 import PredictionMethod
from conductor_model_store import LoadedModel
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.events_file import write_events
from conductor_workbench.simulate.builds import Simulation, simulate

_BUILDS = 400
_DAYS = 30
_DISTINCT_REQUESTS = 64
BATCH_SIZE = 256
_ROLL_OUT_SECONDS = 30.0
_BY_MODEL = PredictionMethod.PREDICTION_METHOD_MODEL


@dataclass(frozen=True)
class Scene:
    """Everything that measurements need."""

    platform: Platform
    tenant_id: str
    builds: tuple[BuildContext, ...]
    """What predictions are asked for: a new build after the last one that was ingested, of various branches."""
    model: LoadedModel
    """The model that answers for the tenant."""

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.platform.directory / "logs"

    def unary_payloads(self, contribution_count: int | None = None) -> tuple[bytes, ...]:
        """Serialized requests; None leaves the number of contributions to the server."""
        return tuple(self._request(build, contribution_count).SerializeToString() for build in self.builds)

    def batch_payload(self, contribution_count: int | None = None) -> bytes:
        """A serialized batch."""
        requests = [self._request(build, contribution_count) for build in self.builds]
        repeated = (requests * (BATCH_SIZE // len(requests) + 1))[:BATCH_SIZE]
        return BatchPredictBuildDurationsRequest(tenant_id=self.tenant_id, requests=repeated).SerializeToString()

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of a call with the tenant's token."""
        return (("authorization", f"Bearer {self.platform.keys.token(self.tenant_id)}"),)

    def answers(self) -> list[PredictBuildDurationResponse]:
        """What the server answers to each of the unary requests."""
        credentials = self.platform.channel_credentials()
        if credentials is None:
            raise RuntimeError("the scene has TLS")
        with grpc.secure_channel(self.platform.prediction_target, credentials) as channel:
            ask = PredictionServiceStub(channel).PredictBuildDuration
            return [ask(self._request(build, None), metadata=self.headers(), timeout=5.0) for build in self.builds]

    def await_model(self) -> None:
        """Return once the model answers, from all of its features. Raises TimeoutError."""
        deadline = time.monotonic() + _ROLL_OUT_SECONDS
        while True:
            labels = [answer.provenance for answer in self.answers()]
            if all(label.model_version == self.model.version and label.method == _BY_MODEL for label in labels):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not answer by the model that was published, but: {labels[-1]}")
            time.sleep(0.2)

    def _request(self, build: BuildContext, contribution_count: int | None) -> PredictBuildDurationRequest:
        request = PredictBuildDurationRequest(tenant_id=self.tenant_id, build=build)
        if contribution_count is not None:
            request.contribution_count = contribution_count
        return request


@contextmanager
def prepared_scene(directory: Path, say: Callable[[str], None]) -> Iterator[Scene]:
    """A platform with models that serve; stopped on the way out. Raises ChildFailed when a part does not come up."""
    last = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    builds = simulate(Simulation(tenants=2, builds=_BUILDS, days=_DAYS, end=last))
    events = [event for queued, completed, _ in builds for event in (queued, completed)]
    tenant_id = events[0].tenant_id
    write_events(events, directory / "events.ndjson")
    settings = PlatformSettings(directory=directory / "platform", redis_tcp=True, keep=False)
    with Platform(settings, say) as platform:
        say(f"Ingesting {len(events):,} events of simulated builds")
        platform.run("ingest", str(directory / "events.ndjson"))
        say("Training and publishing the models")
        platform.run("train", "build-duration")
        store = platform.open_models()
        pointer = store.resolve("build-duration", tenant_id) or store.resolve("build-duration")
        if pointer is None:
            raise RuntimeError("training published no model")
        own = [event for event in events if event.tenant_id == tenant_id]
        next_moment = max(event.time for event in own) + timedelta(seconds=1)
        asked = tuple(_queued_at(event.data.context, next_moment) for event in own if event.type == "build.queued")  # type: ignore[attr-defined]
        asked = asked[-_DISTINCT_REQUESTS:]
        scene = Scene(platform, tenant_id, asked, store.load_pointer(pointer))
        say("Waiting for the server to take the model up")
        scene.await_model()
        yield scene


def _queued_at(build: BuildContext, moment: datetime) -> BuildContext:
    asked = BuildContext()
    asked.CopyFrom(build)
    asked.queued_time.FromDatetime(moment)
    return asked
