"""More tenants' models than fit into memory: loaded beside the requests, dropped, shared, and never mixed up."""

from __future__ import annotations

import asyncio
import random
import time

import numpy as np
import pytest

from conductor.prediction.v1.provenance_pb2 import FallbackReason
from conductor_model_store import CHAMPION, ModelScope, ModelStore
from conductor_rpc import names
from conductor_rpc.telemetry import OFF
from conductor_server.models.loader import ModelLoader
from conductor_server.models.registry import Registry
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shared_graphs import SharedParts
from conductor_server.models.verifier import Verifier
from server.harness import PREDICTOR, request, serving, write_features
from server.many import measured

pytestmark = pytest.mark.long

NONE = FallbackReason.FALLBACK_REASON_UNSPECIFIED
LOADING = FallbackReason.FALLBACK_REASON_MODEL_LOADING
UNAVAILABLE = FallbackReason.FALLBACK_REASON_MODEL_UNAVAILABLE
ROW = (100.0, 0.0, 60.0, 2.0)
GLOBAL = f"models/{PREDICTOR}/global"
LAZY = {"model_load_all_count": 0}


def own(tenant: str) -> str:
    return f"models/{PREDICTOR}/tenants/{tenant}"


def budget(count: float) -> int:
    """Memory for so many of this test's models."""
    return round(count * 105_000)


async def test_a_tenant_whose_model_is_not_there_is_answered_by_the_global_one_and_told_so(redis_url, store, fleet):
    fleet.publish(10)
    versions = fleet.publish_all(["acme", "zeta"])
    write_features(redis_url)
    telemetry, read = measured()
    async with serving(redis_url, store, telemetry, **LAZY) as server:
        first = await server.predict(request(lines=0))
        assert (first.provenance.model_name, first.provenance.fallback_reason) == (GLOBAL, LOADING)
        assert fleet.is_right("acme", first, ROW)
        answer = await server.eventually(lambda a: a.provenance.model_name == own("acme"), request(lines=0))
        assert answer.provenance.fallback_reason == NONE
        assert answer.provenance.model_version == versions["acme"].version
        assert fleet.is_right("acme", answer, ROW)
        nobody = await server.predict(request("nobody", lines=0))
        assert (nobody.provenance.model_name, nobody.provenance.fallback_reason) == (GLOBAL, NONE)
        found = read()
    assert (found[names.MODELS_RESIDENT], found[names.MODELS_KNOWN]) == (2, 3)  # zeta's was never asked for
    assert found[names.MODEL_MISSES] >= 1
    assert found[names.MODEL_HITS] >= 1
    assert found[names.MODEL_LOAD_DURATION] == 2
    assert found[names.MODELS_RESIDENT_MEMORY] > 100_000


async def test_few_models_are_all_there_from_the_start(redis_url, store, fleet):
    fleet.publish_all(["", "acme"])
    async with serving(redis_url, store) as server:
        assert (await server.predict(request())).provenance.model_name == own("acme")


async def test_every_answer_is_of_the_model_that_it_names_while_models_come_go_and_change(  # noqa: PLR0915
    redis_url, store, fleet, monkeypatch
):
    """240 tenants, memory for 25, requests on all of them at once, and a publish or roll-back now and then."""
    monkeypatch.setattr("conductor_server.models.loader._REST_SHARE", 0.0)
    tenants = [f"tenant-{number:03d}" for number in range(240)]
    fleet.publish(10)
    fleet.publish_all(tenants)
    telemetry, read = measured()
    choice = random.Random(5)
    weights = [1 / (rank + 1) for rank in range(len(tenants))]
    write_features(redis_url, "pinned")
    fleet.publish(5000, "pinned")
    for tenant in tenants:
        write_features(redis_url, tenant)
    asked: list[tuple[str, object]] = []
    pinned: list[object] = []
    settings = LAZY | {"model_memory_budget_bytes": budget(25), "model_pinned_tenants": ("pinned",)}
    async with serving(redis_url, store, telemetry, **settings) as server:
        ends = time.monotonic() + 60
        answered: set[str] = set()

        def goes_on():
            return len(answered) < 32 and time.monotonic() < ends

        async def ask():
            while goes_on():
                tenant = choice.choices(tenants, weights)[0]
                answer = await server.predict(request(tenant, lines=0))
                asked.append((tenant, answer))
                answered.add(answer.provenance.model_name)

        async def ask_pinned():
            while goes_on():
                pinned.append(await server.predict(request("pinned", lines=0)))
                await asyncio.sleep(0.02)

        async def change():
            bias = 1000.0
            while goes_on():
                tenant = choice.choices(tenants, weights)[0]
                bias += 1
                await asyncio.to_thread(fleet.publish, bias, tenant)
                if choice.random() < 0.3:
                    await asyncio.to_thread(fleet.store.rollback, PREDICTOR, tenant)
                if choice.random() < 0.1:
                    await asyncio.to_thread(fleet.publish, bias + 0.5)
                await asyncio.sleep(0.05)

        await asyncio.gather(*(ask() for _ in range(6)), ask_pinned(), change())
        found = read()
    wrong = [(tenant, answer) for tenant, answer in asked if not fleet.is_right(tenant, answer, ROW)]
    assert not wrong, (len(wrong), len(asked), [(t, a.provenance, a.duration) for t, a in wrong[:2]])
    by_own = [answer for tenant, answer in asked if answer.provenance.model_name == own(tenant)]
    by_global = [answer for tenant, answer in asked if answer.provenance.model_name == GLOBAL]
    assert len(by_own) + len(by_global) == len(asked)
    assert all(answer.provenance.fallback_reason == NONE for answer in by_own)
    assert all(answer.provenance.fallback_reason == LOADING for answer in by_global)
    assert len(by_own) > 100
    assert len({answer.provenance.model_name for answer in by_own}) > 30
    assert found[names.MODEL_EVICTIONS] > 10
    assert found[names.MODELS_RESIDENT_MEMORY] <= budget(25)
    # Its own model from the first request to the last.
    assert {answer.provenance.model_name for answer in pinned} == {own("pinned")}
    assert all(fleet.is_right("pinned", answer, ROW) for answer in pinned)


async def test_a_model_that_is_there_is_swapped_and_one_that_is_not_is_loaded_as_it_is_now(redis_url, store, fleet):
    fleet.publish(10)
    fleet.publish_all(["acme", "zeta"])
    async with serving(redis_url, store, **LAZY) as server:
        await server.eventually(lambda a: a.provenance.model_name == own("acme"))
        # In this order: whoever has seen the second move has seen the first.
        new = {tenant: fleet.publish(500, tenant).version for tenant in ("zeta", "acme")}
        seen = []

        def noted(answer):
            seen.append(answer.provenance.model_name)
            return answer.provenance.model_version == new["acme"]

        await server.eventually(noted)
        assert set(seen) == {own("acme")}  # the old one answered until the new one did
        own_zeta = lambda a: a.provenance.model_name == own("zeta")  # noqa: E731
        assert (await server.eventually(own_zeta, request("zeta"))).provenance.model_version == new["zeta"]


async def test_a_model_that_can_not_be_loaded_leaves_the_global_one_answering_and_is_not_hammered(
    redis_url, store, fleet
):
    fleet.publish(10)
    versions = fleet.publish_all(["acme", "zeta"])
    [blob] = [
        store / "blobs" / "sha256" / fleet.store.load(PREDICTOR, "acme", versions["acme"].version).manifest.graph.digest
    ]
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + b"?")
    telemetry, read = measured()
    async with serving(redis_url, store, telemetry, **LAZY) as server:
        message, began = request(lines=0), time.monotonic()
        await server.eventually(lambda a: a.provenance.fallback_reason == UNAVAILABLE, message)
        async with asyncio.timeout(60):
            while read()[names.MODEL_REFUSALS] < 2:  # it is tried again, of which nobody should expect anything
                for _ in range(100):
                    answer = await server.predict(message)
                    assert answer.provenance.model_name == GLOBAL
                    assert answer.provenance.fallback_reason == UNAVAILABLE
        assert time.monotonic() - began > 1
        # The others are not held up by it, and when it is mended it serves.
        await server.eventually(lambda a: a.provenance.model_name == own("zeta"), request("zeta"))
        blob.write_bytes(content)
        answer = await server.eventually(lambda a: a.provenance.model_name == own("acme"), message)
        assert answer.provenance.fallback_reason == NONE


async def test_a_refused_version_leaves_the_one_before_it_to_those_who_ask(redis_url, store, fleet):
    fleet.publish(10)
    good = fleet.publish(20, "acme")
    bad = fleet.publish(30, "acme")
    (store / ModelScope(PREDICTOR, "acme").version_key(bad.version)).write_bytes(b"?")
    fleet.publish_all([f"other-{number}" for number in range(6)])
    async with serving(redis_url, store, **LAZY | {"model_memory_budget_bytes": 1 << 20}) as server:
        for _ in range(2):  # dropped in between, and found again without trying the bad one each time
            await server.eventually(lambda a: a.provenance.model_version == good.version)
            for number in range(6):
                tenant = f"other-{number}"
                name = own(tenant)
                await server.eventually(lambda a, n=name: a.provenance.model_name == n, request(tenant))


def test_equal_graphs_share_one_session_and_count_once(fleet):
    parts = SharedParts()
    registry = Registry({PREDICTOR: ()}, memory_budget_bytes=budget(10))
    for tenant in ("", "a", "b", "c"):
        fleet.publish(10, tenant)
    fleet.publish(11, "d")
    models = {
        scope.tenant_id: ServedModel.of(fleet.store.load_pointer(pointer), parts)
        for scope, pointer in fleet.store.pointers().items()
    }
    assert len({id(models[tenant].session) for tenant in ("", "a", "b", "c")}) == 1
    assert models["d"].session is not models["a"].session
    assert len({id(model.plan) for model in models.values()}) == 1
    shared, other = models["a"].graph.memory_bytes, models["d"].graph.memory_bytes
    beside = 0
    for tenant, model in models.items():
        registry.put((ModelScope(PREDICTOR, tenant), CHAMPION), model)
        beside += model.memory_bytes
    assert registry.resident.memory_bytes == shared + other + beside
    registry.put((ModelScope(PREDICTOR, "d"), CHAMPION), models["a"])
    assert registry.resident.memory_bytes < shared + other + beside - other + models["a"].memory_bytes + 1
    row = np.array([ROW], np.float32)
    del models["d"]
    assert models["b"].session.run(None, {"inputs": row})


def test_what_was_used_longest_ago_goes_first_and_pinned_ones_never(fleet):
    fleet.publish(1)
    fleet.publish_all([f"t{number}" for number in range(8)])
    parts = SharedParts()
    registry = Registry({PREDICTOR: ()}, memory_budget_bytes=budget(4.5), pinned_tenants=["t0"])
    places = {scope.tenant_id: (scope, CHAMPION) for scope in fleet.store.pointers()}
    for tenant in ("", "t0", "t1", "t2"):
        pointer = fleet.store.resolve(PREDICTOR, tenant)
        assert registry.put(places[tenant], ServedModel.of(fleet.store.load_pointer(pointer), parts)) == []
    assert registry.route(PREDICTOR, "t1").models[0].label.name == own("t1")  # used: t2 is older now
    held = registry.route(PREDICTOR, "t2").models[0]
    registry.route(PREDICTOR, "t1")
    gone = []
    for tenant in ("t3", "t4", "t5"):
        pointer = fleet.store.resolve(PREDICTOR, tenant)
        gone += registry.put(places[tenant], ServedModel.of(fleet.store.load_pointer(pointer), parts))
    assert [model.label.name for model in gone] == [own("t2"), own("t1"), own("t3")]
    assert {place[0].tenant_id for place in places.values() if place in registry.resident} == {"", "t0", "t4", "t5"}
    assert [model.label.name for model in registry.route(PREDICTOR, "t2").models] == [GLOBAL]
    # A request that still holds a dropped one ends with it.
    assert asyncio.run(held.run(np.array([ROW], np.float32))).shape == (1, 3)


async def test_who_asked_last_is_served_first_and_who_asked_long_ago_not_at_all(fleet, monkeypatch):
    tenants = [f"t{number}" for number in range(6)]
    fleet.publish_all(tenants)
    watch = fleet.store.watch()
    watch.poll()
    registry = Registry({PREDICTOR: ()}, memory_budget_bytes=budget(50))
    order, gate = [], asyncio.Semaphore(0)

    class Gated(Verifier):
        async def verify(self, model):
            order.append(model.scope.tenant_id)
            await gate.acquire()

    async with ModelLoader(fleet.store, watch, registry, Gated(60, 1 << 30), OFF) as loader:

        def ask(tenant):
            assert loader.ask((ModelScope(PREDICTOR, tenant), CHAMPION))

        async def until(count):
            async with asyncio.timeout(60):
                while len(order) < count:  # noqa: ASYNC110 - the models' own pace
                    await asyncio.sleep(0.005)

        ask("t0")
        await until(1)
        for tenant in ("t1", "t2", "t3", "t2", "t2"):
            ask(tenant)
        loader.follow((ModelScope(PREDICTOR, "t4"), CHAMPION))  # a swap comes before all that is asked for
        for count in (2, 3):
            gate.release()
            await until(count)
        assert order == ["t0", "t4", "t2"]
        # Both others waited longer than anybody does.
        monkeypatch.setattr("conductor_server.models.loader._ASKED_SECONDS", -1.0)
        gate.release()
        async with asyncio.timeout(60):
            while (ModelScope(PREDICTOR, "t2"), CHAMPION) not in registry.resident:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        monkeypatch.setattr("conductor_server.models.loader._ASKED_SECONDS", 10.0)
        ask("t5")
        await until(4)
        gate.release()
    assert order == ["t0", "t4", "t2", "t5"]


async def test_a_store_that_is_away_for_a_while_costs_nobody_a_model(redis_url, store, fleet):
    fleet.publish(10)
    fleet.publish_all(["acme"])
    aside = store.with_name("away")
    async with serving(redis_url, store, **LAZY) as server:
        await server.predict(request(lines=0))
        await server.eventually(lambda a: a.provenance.model_name == own("acme"))
        store.rename(aside)
        store.write_text("no folder")
        await asyncio.sleep(0.3)
        assert (await server.predict(request())).provenance.model_name == own("acme")
        store.unlink()
        aside.rename(store)
        new = ModelStore.open(store).promote  # the store is as it was: moves are seen again
        version = fleet.publish(77, "acme").version
        assert new(PREDICTOR, "acme", version).version == version
        await server.eventually(lambda a: a.provenance.model_version == version)
