"""Ten thousand tenants' models on one server, beside the same server with one.

The models are one trained graph under ten thousand digests. Tenants ask by Zipf's law, at a fixed rate. Both servers
run all the time and are measured in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor_model_store import ModelScope, ModelStore
from conductor_workbench.bench.answer_sample import AnswerSample
from conductor_workbench.bench.calls import Caller
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.load import Endpoint
from conductor_workbench.bench.model_fleet import copy_features, publish_fleet, tenant_name
from conductor_workbench.bench.scene import Scene
from conductor_workbench.bench.server_process import ServerProcess, memory

MODELS = 10_000
RATE_PER_S = 100.0
_ZIPF_EXPONENT = 1.0
_PAYLOADS = 20_000
_TURNS = 3
_TURN_SECONDS = 12.0
_MEMORY_MODELS = 150
_CHANGES = 5
_CHANGE_SECONDS = 20.0
_METHOD = "/conductor.prediction.v1.PredictionService/PredictBuildDuration"


def measure_many_models(scene: Scene, say: Callable[[str], None], count: int = MODELS) -> Figures:
    """Latency, hit rate, memory, load times, start-up and the time that a change takes.

    Raises:
        ChildFailed: a server did not come up.
    """
    directory = scene.platform.directory
    found: Figures = {"models": count, "graph_bytes": len(scene.model.graph), "zipf_exponent": _ZIPF_EXPONENT}
    say(f"Publishing {count:,} models")
    began = time.perf_counter()
    many, one = directory / "many-models", directory / "one-model"
    publish_fleet(many, scene.model, count)
    found["publish_ms_each"] = significant((time.perf_counter() - began) / count * 1e3)
    publish_fleet(one, scene.model, 1)
    copy_features(scene.platform.redis_url, scene.builds[0], scene.tenant_id, count)
    found["load"] = _loads(scene, many)
    found["poll"] = _polls(many)
    environment = dict(scene.platform.environment) | {"CONDUCTOR_MODEL_TRUSTED_KEYS": ""}
    say("Starting a server with one model and one with all")
    with (
        ServerProcess(environment | {"CONDUCTOR_MODEL_STORE": str(one)}, scene.logs / "one.log", keys=None) as single,
        ServerProcess(environment | {"CONDUCTOR_MODEL_STORE": str(many)}, scene.logs / "many.log", keys=None) as fleet,
        Child("conductor_workbench.bench.load", scene.logs / "load.log") as generator,
    ):
        found["start_up_seconds"] = {
            "one": significant(single.start_up_seconds),
            "many": significant(fleet.start_up_seconds),
        }
        found["memory"] = {"one": memory(single.pid), "many_at_start": memory(fleet.pid)}
        found |= _turns(scene, generator, single, fleet, count, say)
        found["memory"]["many"] = memory(fleet.pid)
        say("Changing models that are in use")
        found["change"] = _changes(fleet, ModelStore.open(many), scene, count)
    return found


def _turns(
    scene: Scene, generator: Child, single: ServerProcess, fleet: ServerProcess, count: int, say: Callable[[str], None]
) -> Figures:
    ranks = np.random.default_rng(0).choice(count, size=_PAYLOADS, p=_zipf(count))
    asked = tuple(_request(scene, tenant_name(int(rank))).SerializeToString() for rank in ranks)
    same = (_request(scene, tenant_name(0)).SerializeToString(),)
    turns: list[Figures] = []
    for turn in range(_TURNS):
        say(f"One model, then {count:,}: {turn + 1} of {_TURNS}")
        beside = Caller(generator, Endpoint(single.target, _METHOD, same), single.pid)
        part = asked[turn * len(asked) // _TURNS :]  # each turn asks others; the loud ones are the same
        caller = Caller(generator, Endpoint(fleet.target, _METHOD, part), fleet.pid)
        one = beside.at_rate(RATE_PER_S, _TURN_SECONDS)
        with AnswerSample(fleet.target, scene.builds[0], _zipf(count), seed=turn) as sample:
            many = caller.at_rate(RATE_PER_S, _TURN_SECONDS)
        turns.append({"one": one, "many": many, "answers": sample.figures()})
    ratios = [turn["many"]["latency"]["p95_ms"] / turn["one"]["latency"]["p95_ms"] for turn in turns]
    return {
        "turns": turns,
        "p95_many_over_one": significant(statistics.median(ratios)),
        "p95_many_over_one_by_turn": [significant(ratio) for ratio in ratios],
        "hit_rate_by_turn": [turn["answers"]["hit_rate"] for turn in turns],
    }


def _loads(scene: Scene, location: Path) -> Figures:
    """Memory and time of a model, in a process that does nothing else."""
    with Child("conductor_workbench.bench.model_loads", scene.logs / "loads.log") as child:
        return child.ask({"location": str(location), "count": _MEMORY_MODELS})


def _polls(location: Path) -> Figures:
    """What watching so many scopes costs: at first, while nothing changes, and when one changed."""
    store, watch = ModelStore.open(location), ModelStore.open(location).watch()
    seconds: dict[str, list[float]] = {"first": [], "quiet": [], "one_change": []}

    def poll(kind: str) -> None:
        began = time.perf_counter()
        watch.poll()
        seconds[kind].append(time.perf_counter() - began)

    poll("first")
    for _ in range(5):
        poll("quiet")
        scope = ModelScope("build-duration", tenant_name(1))
        pointer = store.resolve(scope.predictor, scope.tenant_id)
        if pointer is not None:
            store.promote(scope.predictor, scope.tenant_id, _other_version(store, scope, pointer.version))
        poll("one_change")
    return {f"{kind}_ms": significant(statistics.median(times) * 1e3) for kind, times in seconds.items()}


def _changes(fleet: ServerProcess, store: ModelStore, scene: Scene, count: int) -> Figures:
    """From a promotion to the first answer by it, of a tenant whose model is in use."""
    seconds = []
    scope = ModelScope("build-duration", tenant_name(1 % count))
    request = _request(scene, scope.tenant_id)
    with grpc.insecure_channel(fleet.target) as channel:
        ask = PredictionServiceStub(channel).PredictBuildDuration  # type: ignore[no-untyped-call, unused-ignore]
        for _ in range(_CHANGES):
            pointer = store.resolve(scope.predictor, scope.tenant_id)
            version = _other_version(store, scope, pointer.version if pointer else "")
            store.promote(scope.predictor, scope.tenant_id, version)
            began = time.perf_counter()
            while ask(request, timeout=5.0).provenance.model_version != version:
                if time.perf_counter() - began > _CHANGE_SECONDS:
                    raise TimeoutError(f"{version} does not serve after {_CHANGE_SECONDS} s")
                time.sleep(0.01)
            seconds.append(time.perf_counter() - began)
    found = {"median_s": statistics.median(seconds), "most_s": max(seconds)}
    return {"count": len(seconds)} | {name: significant(value) for name, value in found.items()}


def _other_version(store: ModelStore, scope: ModelScope, version: str) -> str:
    versions = [stored.version for stored in store.versions(scope.predictor, scope.tenant_id)]
    return next(found for found in versions if found != version)


def _request(scene: Scene, tenant_id: str) -> PredictBuildDurationRequest:
    return PredictBuildDurationRequest(tenant_id=tenant_id, build=scene.builds[0])


def _zipf(count: int) -> NDArray[np.float64]:
    weights = np.arange(1, count + 1, dtype=np.float64) ** -_ZIPF_EXPONENT
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
