"""Histories of tests in a real Redis, a real model of test failures, and the domain that answers from both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

import redis

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_features.changes.graph_codec import HEADER_BYTES, encode_graph, graph_keys
from conductor_features.changes.impact_graph import ImpactGraph
from conductor_features.filling import position_key
from conductor_features.reader import OnlineReader
from conductor_features.views import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY, VIEWS
from conductor_features.writer import write_rows
from conductor_model_store import CHAMPION, LoadedModel, ModelScope
from conductor_rpc.call import NO_DEADLINE
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_server.app import test_intelligence
from conductor_server.models.registry import Registry
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.settings import ServerSettings
from conductor_server.testing import flakiness
from conductor_server.testing.answers import Impact, Predicted
from conductor_server.testing.flakiness import Flakiness
from conductor_server.testing.intelligence import VIEWS as ALWAYS_READ
from conductor_server.testing.intelligence import TestIntelligence
from conductor_server.testing.questions import TEST_FAILURE, TEST_FLAKINESS, TestRun
from conductor_training import bundles
from conductor_training.test_failure.backtest import fit_correction
from conductor_training.test_failure.calibration import BetaCalibration
from conductor_training.test_failure.columns import COLUMNS
from conductor_training.test_failure.estimator import BLENDS, Estimator
from conductor_training.test_failure.frame import Run, TestFrame, _Past, frame_of_runs
from conductor_training.test_failure.graph import PROBABILITY, export_graph
from conductor_training.test_failure.trees import INPUT_NAME
from training.test_runs import make_runs

REPOSITORY = "acme/shop"
OVERALL = 0.25

Cycle = tuple[float, float, Sequence[float]]
"""Start, end, and the probabilities that the failed tests had been given."""


@dataclass(frozen=True)
class Trained:
    """Runs, and what was learned of them."""

    runs: Sequence[Run]
    frame: TestFrame
    estimator: Estimator
    graph: bytes


@cache
def trained(runs: int = 60, tests: int = 20) -> Trained:
    """A model with trees, in a second or two."""
    made = make_runs(runs, tests)
    frame = frame_of_runs(made)
    unknown, trees = fit_correction(frame)
    assert trees is not None
    estimator = Estimator(BLENDS[1], unknown, trees, BetaCalibration(0.9, 1.1, -0.2))
    return Trained(made, frame, estimator, export_graph(estimator).SerializeToString(deterministic=True))


def model(one: Trained, tenant_id: str = "acme", cycles: Iterable[Cycle] | None = None) -> LoadedModel:
    """As the store would hand it out."""
    inputs = one.frame.inputs
    manifest = ModelManifest(
        predictor=TEST_FAILURE,
        tenant_id=tenant_id,
        graph=bundles.blob(one.graph),
        inputs=bundles.input_columns(COLUMNS, inputs),
        input_name=INPUT_NAME,
        probability={"probability": PROBABILITY},
        fallback={"overall_rate": {"rate": OVERALL, "row_count": len(inputs)}},
        golden_requests=bundles.golden_requests(inputs, bundles.run(one.graph, INPUT_NAME, [PROBABILITY], inputs)),
    )
    if cycles is not None:
        manifest.selection_calibration.SetInParent()
        for started, completed, failed in cycles:
            run = manifest.selection_calibration.runs.add(failed_probabilities=failed)
            run.start_time.FromMicroseconds(round(started * 1e6))
            run.completed_time.FromMicroseconds(round(completed * 1e6))
    digest = bundles.blob(manifest.SerializeToString(deterministic=True)).digest
    return LoadedModel(ModelScope(TEST_FAILURE, tenant_id), digest[:16], digest, manifest, one.graph)


def filled(redis_url: str) -> redis.Redis:
    """A client of a store that holds all there is."""
    client = redis.Redis.from_url(redis_url)
    for view in VIEWS:
        client.set(position_key(view), b"epoch+lists 7 1")
    return client


def write_past(redis_url: str, runs: Sequence[Run], pairs_age: timedelta = timedelta(0)) -> None:
    """The rows that the warehouse would have written after these runs of one repository.

    Those of pairs of tests and paths may be of an earlier time.
    """
    past = _Past()
    for run in runs:
        past.add(run)
    at = datetime.fromtimestamp(runs[-1].completed, UTC)
    owner = (runs[-1].tenant_id, runs[-1].repository)
    tests = sorted({test for run in runs for test in run.tests})
    paths = sorted({path for run in runs for path in run.changed_paths})
    with filled(redis_url) as client:
        for view, histories, members in ((TEST_HISTORY, past.tests, tests), (PATH_CHANGES, past.paths, paths)):
            rows = histories.rows(histories.find(members), at.timestamp()) if members else []
            write_rows(client, view, [((*owner, one), at, row) for one, row in zip(members, rows, strict=True)])
        pairs = [(test, path, count) for path in paths for test, count in past.failures[path].items()]
        write_rows(
            client,
            TEST_PATH_AFFINITY,
            [((*owner, test, path), at - pairs_age, [count, at.timestamp()]) for test, path, count in pairs],
        )


def write_graph(redis_url: str, graph: ImpactGraph, tenant_id: str = "acme", repository: str = REPOSITORY) -> None:
    """As the tailing writer does it."""
    pointer, place = graph_keys((tenant_id, repository), 1)
    value = encode_graph(pointer, 1, graph)
    with redis.Redis.from_url(redis_url) as client:
        client.set(place, value)
        client.set(pointer, value[:HEADER_BYTES])


@dataclass(frozen=True)
class Serving:
    """The domain, and the models that it asks."""

    intelligence: TestIntelligence
    flakiness: Flakiness
    registry: Registry

    def put(self, one: LoadedModel, channel: str = CHAMPION) -> ServedModel:
        """Let a model serve."""
        served = ServedModel.of(one, SharedParts())
        self.registry.put((one.scope, channel), served)
        return served


@asynccontextmanager
async def serving(
    redis_url: str, *models: LoadedModel, telemetry: Telemetry = OFF, **settings: object
) -> AsyncIterator[Serving]:
    """Test intelligence with these models as champions."""
    patience = {
        "feature_timeout_seconds": 2.0,
        "test_feature_timeout_seconds": 2.0,
    }  # these share two cores with others
    made = ServerSettings(insecure=True, redis_url=redis_url, **{**patience, **settings})
    registry = Registry({TEST_FAILURE: ALWAYS_READ, TEST_FLAKINESS: flakiness.VIEWS}, memory_budget_bytes=1 << 30)
    async with (
        OnlineReader(redis_url, made.feature_timeout_seconds) as reader,
        test_intelligence(made, reader, registry, telemetry) as tests,
    ):
        one = Serving(tests.intelligence, tests.flakiness, registry)
        for each in models:
            one.put(each)
        yield one


def run_at(moment: float, **more: object) -> TestRun:
    """A run that begins then, of a caller who names that time."""
    made = TestRun("acme", REPOSITORY, round(moment * 1e6), past_only=True)
    return replace(made, **more)  # type: ignore[arg-type]


async def answered(server: Serving, asked: TestRun, impact: Impact) -> Predicted:
    """An answer with the graph known like that; until then it is being loaded."""
    async with asyncio.timeout(60):
        while True:
            answer = await server.intelligence.predict(asked, 2, NO_DEADLINE)
            if answer.basis.impact is impact:
                return answer
            assert answer.basis.impact is Impact.LOADING
            assert answer.explanations[0].impact is None
            await asyncio.sleep(0.01)
