"""Processor time of predictions by stage: the server's own code in this process, without gRPC and credentials."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    BatchPredictBuildDurationsResponse,
)
from conductor_features.reader import OnlineReader
from conductor_features.tables import RowTable, TableLayout
from conductor_model_store import CHAMPION, LoadedModel, ModelStore
from conductor_rpc import rules
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.telemetry import OFF
from conductor_server.features.online import OnlineFeatures
from conductor_server.models.registry import Registry
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.prediction.answers import Prediction
from conductor_server.prediction.asked import Asked
from conductor_server.prediction.build_duration import PREDICTOR, BuildDurationPredictor
from conductor_server.prediction.history import HISTORY_VIEWS
from conductor_server.servicers.translation import fill, to_question
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.model_fleet import copy_features, publish_fleet, tenant_name
from conductor_workbench.bench.scene import BATCH_SIZE, Scene

DECODE, RULES, QUESTIONS, READ, RUN, PREDICT, ANSWERS, ENCODE = STAGES = (
    "decode",
    "field_rules",
    "questions",
    "redis_read",
    "onnx_run",
    "rest_of_predicting",
    "answers",
    "encode",
)
SIZES = (1, 32, BATCH_SIZE)
TENANTS = 32
"""That each have a model of their own."""
_READ_SECONDS = 1.0
_LEAST_ROUNDS = 5


def measure_stages(scene: Scene, seconds: float) -> Figures:
    """Microseconds of processor time for each of several builds that all differ, answered together.

    They are of one tenant, or each of another with a model of its own. ``seconds`` for each.
    """
    location = scene.platform.directory / "stages-models"
    publish_fleet(location, scene.model, TENANTS)
    for build in scene.builds:
        copy_features(scene.platform.redis_url, build, scene.tenant_id, TENANTS)
    return asyncio.run(_measure(scene, ModelStore.open(location), seconds))


async def _measure(scene: Scene, fleet: ModelStore, seconds: float) -> Figures:
    async with OnlineReader(scene.platform.redis_url, _READ_SECONDS) as reader:
        clock = _Clock()
        registry = _registry([scene.model, *_loaded(fleet)], clock)
        predictor = BuildDurationPredictor(registry, _TimedFeatures(OnlineFeatures(reader, OFF), clock), OFF)
        found: Figures = {}
        for name, count in (("with_contributions", None), ("without_contributions", 0)):
            payload = scene.batch_payload(count)
            cases = {f"together_{size}": _all_different(payload, size) for size in SIZES}
            cases[f"together_{TENANTS}_tenants"] = _of_tenants(_all_different(payload, TENANTS))
            found[name] = {case: await _rounds(predictor, asked, clock, seconds) for case, asked in cases.items()}
    return found


def _loaded(fleet: ModelStore) -> Iterator[LoadedModel]:
    for number in range(TENANTS):
        pointer = fleet.resolve(PREDICTOR, tenant_name(number))
        if pointer is None:
            raise RuntimeError("a model was not published")
        yield fleet.load_pointer(pointer)


def _registry(models: Sequence[LoadedModel], clock: _Clock) -> Registry:
    registry, parts = Registry({PREDICTOR: HISTORY_VIEWS}, memory_budget_bytes=1 << 30), SharedParts()
    for model in models:
        served = _TimedModel(ServedModel.of(model, parts), clock)
        registry.put((model.scope, CHAMPION), cast(ServedModel, served))
    return registry


async def _rounds(predictor: BuildDurationPredictor, payload: bytes, clock: _Clock, seconds: float) -> Figures:
    size = len(BatchPredictBuildDurationsRequest.FromString(payload).requests)
    rounds: list[dict[str, float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < _LEAST_ROUNDS or time.perf_counter() < end:
        clock.spent.clear()
        await _answer(predictor, payload, clock)
        rounds.append(dict(clock.spent))
    by_stage = {stage: float(np.median([spent[stage] for spent in rounds])) / size * 1e6 for stage in STAGES}
    return {f"{stage}_us": significant(value) for stage, value in by_stage.items()} | {
        "sum_us": significant(sum(by_stage.values())),
        "rounds": len(rounds),
    }


async def _answer(predictor: BuildDurationPredictor, payload: bytes, clock: _Clock) -> None:
    with clock.stage(DECODE):
        batch = BatchPredictBuildDurationsRequest.FromString(payload)
    with clock.stage(RULES):
        for request in batch.requests:
            rules.validate(request)
    with clock.stage(QUESTIONS):
        asked = [Asked(request.tenant_id, to_question(request), NO_DEADLINE) for request in batch.requests]
    with clock.stage(PREDICT):
        answers = await predictor.predict(asked)
    clock.spent[PREDICT] -= clock.spent[READ] + clock.spent[RUN]
    response = BatchPredictBuildDurationsResponse()
    with clock.stage(ANSWERS):
        for answer in answers:
            if not isinstance(answer, Prediction):
                raise RuntimeError(f"a build was not predicted: {answer}")
            fill(response.results.add().response, answer)
    with clock.stage(ENCODE):
        response.SerializeToString()
    tenants = {one.tenant_id for one in asked}
    models = {result.response.provenance.model_digest for result in response.results}
    if len(models) != len(tenants):
        raise RuntimeError(f"{len(models)} models answered {len(tenants)} tenants")


def _all_different(payload: bytes, size: int) -> bytes:
    """So many of a batch, every build's change unlike the others'; equal ones are run once, and would flatter."""
    batch = BatchPredictBuildDurationsRequest.FromString(payload)
    del batch.requests[size:]
    for number, request in enumerate(batch.requests):
        request.build.change.added_line_count += 1000 * number
    return batch.SerializeToString()


def _of_tenants(payload: bytes) -> bytes:
    """The same, each asked by another tenant."""
    batch = BatchPredictBuildDurationsRequest.FromString(payload)
    for number, request in enumerate(batch.requests):
        request.tenant_id = tenant_name(number)
    return batch.SerializeToString()


class _Clock:
    """Adds up the processor time of stages."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.spent[name] += time.process_time() - began


class _TimedFeatures:
    def __init__(self, features: OnlineFeatures, clock: _Clock) -> None:
        self._features, self._clock = features, clock

    @property
    def longest_seconds(self) -> float:
        return self._features.longest_seconds

    async def read(
        self, layout: TableLayout, entities: Sequence[Sequence[tuple[str, ...]]], until: Deadline = NO_DEADLINE
    ) -> RowTable:
        with self._clock.stage(READ):
            return await self._features.read(layout, entities, until)


class _TimedModel:
    def __init__(self, model: ServedModel, clock: _Clock) -> None:
        self._model, self._clock = model, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def run(self, inputs: NDArray[np.float32], until: Deadline = NO_DEADLINE) -> NDArray[np.float64]:
        with self._clock.stage(RUN):
            return await self._model.run(inputs, until)
