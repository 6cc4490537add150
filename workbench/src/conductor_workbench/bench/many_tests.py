"""Calls about thousands of tests: prediction, selection; beside their floors.

One tenant has three repositories. The models are trained on the runs of a small one; the others have 2,000 and 10,000
tests, whose histories are the feature store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, perf_counter, sleep

import grpc
import numpy as np
import redis

from conductor.prediction.v1.provenance_pb2 import PredictionMethod
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest, PredictTestFailuresResponse
from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceStub
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_run_pb2 import TestRunContext
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_features.keys import entity_key
from conductor_features.views import TEST_HISTORY
from conductor_model_store import LoadedModel
from conductor_server.models.sessions import open_session, run_session
from conductor_workbench.bench.calls import Caller
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, repeat, significant, spread
from conductor_workbench.bench.load import Endpoint
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.events_file import Event, write_events
from conductor_workbench.simulate.tests import TestSimulation, simulate_tests

SIZES = (2_000, 10_000)
RATE_PER_S = {2_000: 5.0, 10_000: 2.0}
"""Calls a second at which latency is measured: what a few CI jobs a second would ask."""
_TESTS_IN_FILE = 20
_RUNS_OF_LARGE = 5
_CHANGED_FILES = 12
_SERVICE = "/conductor.testing.v1.TestIntelligenceService"
_ROLL_OUT_SECONDS = 60.0
_BY_MODEL = {PredictionMethod.PREDICTION_METHOD_MODEL, PredictionMethod.PREDICTION_METHOD_MODEL_DEGRADED}
PREDICTOR = "test-failure"


@dataclass(frozen=True)
class _Scene:
    platform: Platform
    tenant_id: str
    tests: dict[int, list[str]]
    """Of each large repository, by how many they are."""
    files: dict[int, list[str]]
    model: LoadedModel

    def run(self, size: int, *, named: bool) -> TestRunContext:
        """A run of a change of some files; of named tests or of all known ones."""
        run = TestRunContext(repository=_repository(size), test_ids=self.tests[size] if named else ())
        for path in self.files[size][:_CHANGED_FILES]:
            run.changed_files.add(path=path)
        return run

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of a call with the tenant's token."""
        return (("authorization", f"Bearer {self.platform.keys.token(self.tenant_id)}"),)


def measure_many_tests(directory: Path, seconds: float, say: Callable[[str], None]) -> Figures:
    """Latency and cost of each method by the number of tests, and the floors.

    Raises:
        ChildFailed: a part did not come up.
    """
    with (
        _prepared(directory, say) as scene,
        Child("conductor_workbench.bench.load", scene.platform.directory / "logs" / "load.log") as generator,
    ):
        found: Figures = {}
        for size in SIZES:
            found[f"tests_{size}"] = {
                "predict": _calls(scene, generator, size, "PredictTestFailures", seconds, say, named=True),
                "predict_known": _calls(scene, generator, size, "PredictTestFailures", seconds, say, named=False),
                "select": _calls(scene, generator, size, "SelectTests", seconds, say, named=True),
                "floors": _floors(scene, size, seconds),
            }
        return found


def _repository(size: int) -> str:
    return f"octocat/of-{size}"


@contextmanager
def _prepared(directory: Path, say: Callable[[str], None]) -> Iterator[_Scene]:
    last = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    learned = TestSimulation(runs=160, days=30, end=last)
    large = {
        size: replace(
            learned,
            repository=_repository(size),
            files=size // _TESTS_IN_FILE,
            tests_in_file=_TESTS_IN_FILE,
            runs=_RUNS_OF_LARGE,
            days=10,
        )
        for size in SIZES
    }
    say(f"Simulating the runs of {' and '.join(f'{size:,}' for size in SIZES)} tests")
    runs = {size: _named_by_repository(large[size]) for size in SIZES}
    write_events(
        [*(event for event, _ in simulate_tests(learned)), *(event for of_one in runs.values() for event in of_one)],
        directory / "tests.ndjson",
    )
    with Platform(PlatformSettings(directory=directory / "platform", redis_tcp=True, keep=False), say) as platform:
        say("Ingesting them")
        platform.run("ingest", str(directory / "tests.ndjson"))
        say("Training")
        platform.run("train", PREDICTOR, "--tenant", learned.tenant_id)
        store = platform.open_models()
        pointer = store.resolve(PREDICTOR, learned.tenant_id)
        if pointer is None:
            raise RuntimeError("training published no model")
        scene = _Scene(
            platform,
            learned.tenant_id,
            {size: sorted({result.test_id for result in runs[size][0].data.results}) for size in SIZES},  # type: ignore[attr-defined]
            {size: [f"src/shop/part_{file:02d}.py" for file in range(large[size].files)] for size in SIZES},
            store.load_pointer(pointer),
        )
        say("Waiting for the server to take the model up")
        _await_model(scene)
        yield scene


def _named_by_repository(settings: TestSimulation) -> list[Event]:
    """The runs, with ids that are not those of another repository's."""
    events = []
    for event, _ in simulate_tests(settings):
        run_id = f"{settings.repository.rpartition('/')[2]}-{event.subject}"
        event.data.run_id = run_id  # type: ignore[attr-defined]
        events.append(replace(event, id=f"{run_id}/completed", subject=run_id))
    return events


def _await_model(scene: _Scene) -> None:
    credentials = scene.platform.channel_credentials()
    if credentials is None:
        raise RuntimeError("the scene has TLS")
    request = PredictTestFailuresRequest(tenant_id=scene.tenant_id, run=scene.run(SIZES[0], named=True))
    deadline = monotonic() + _ROLL_OUT_SECONDS
    with grpc.secure_channel(scene.platform.prediction_target, credentials) as channel:
        while True:
            label = "no answer"
            try:
                answer: PredictTestFailuresResponse = TestIntelligenceServiceStub(channel).PredictTestFailures(
                    request, metadata=scene.headers(), timeout=5.0
                )
            except grpc.RpcError as error:
                label = str(error)
            else:
                if answer.provenance.model_version == scene.model.version and answer.provenance.method in _BY_MODEL:
                    if answer.basis.never_run_count or answer.basis.unreadable_count:
                        raise RuntimeError(f"histories are missing: {answer.basis}")
                    return
                label = str(answer.provenance)
            if monotonic() > deadline:
                raise TimeoutError(f"the server does not answer by the model that was published: {label}")
            sleep(0.2)


def _calls(
    scene: _Scene,
    generator: Child,
    size: int,
    method: str,
    seconds: float,
    say: Callable[[str], None],
    *,
    named: bool,
) -> Figures:
    say(f"{method} of {size:,} tests{'' if named else ', all known ones'}")
    run = scene.run(size, named=named)
    requests = {
        "PredictTestFailures": PredictTestFailuresRequest(tenant_id=scene.tenant_id, run=run),
        "SelectTests": SelectTestsRequest(tenant_id=scene.tenant_id, run=run, miss_rate=0.1),
        "PrioritizeTests": PrioritizeTestsRequest(tenant_id=scene.tenant_id, run=run),
    }
    payload = requests[method].SerializeToString()
    endpoint = Endpoint(
        target=scene.platform.prediction_target,
        method=f"{_SERVICE}/{method}",
        payloads=(payload,),
        root_certificates=scene.platform.keys.ca_certificate.read_text(),
        headers=scene.headers(),
    )
    caller = Caller(generator, endpoint, scene.platform.pid("serve"))
    return {
        "request_bytes": len(payload),
        "at_rate": caller.at_rate(RATE_PER_S[size], max(4 * seconds, 4.0)),
        "saturation": caller.saturate(seconds, in_flight=1),
    }


def _floors(scene: _Scene, size: int, seconds: float) -> Figures:
    """What can't be done without: one ``MGET`` of the rows, undecoded, and the graph's run."""
    owner = (scene.tenant_id, _repository(size))
    keys = [entity_key(TEST_HISTORY.key, (*owner, test)) for test in scene.tests[size]]
    with redis.Redis.from_url(scene.platform.redis_url) as client:
        if None in client.mget(keys):
            raise RuntimeError("rows are missing that were written just now")
        read = repeat(seconds / 4, lambda: client.mget(keys))
    manifest = scene.model.manifest
    session = open_session(scene.model.graph)
    inputs = np.zeros((size, len(manifest.inputs)), np.float32)
    names = (manifest.probability.probability,)
    began = perf_counter()
    run_session(session, manifest.input_name, names, inputs)
    first_ms = (perf_counter() - began) * 1e3
    runs = repeat(seconds / 4, lambda: run_session(session, manifest.input_name, names, inputs))
    return {
        "redis_mget": spread(read, "ms", 1e3),
        "onnx_runtime": spread(runs, "ms", 1e3),
        "onnx_runtime_first_ms": significant(first_ms),
    }
