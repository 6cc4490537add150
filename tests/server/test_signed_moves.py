"""A server follows only those who may move channels, forward only, and for as long as their keys are trusted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor.model.v1 import model_service_pb2 as messages
from conductor.model.v1.model_service_pb2_grpc import ModelServiceStub
from conductor.prediction.v1.provenance_pb2 import FallbackReason
from conductor_model_store import ModelStore
from conductor_model_store.scope import ModelScope
from conductor_model_store.settings import ModelStoreSettings
from conductor_model_store.signing_keys import generate_key_pair
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from machine import within
from rpc.harness import failure
from server.harness import PREDICTOR, graph, list_often, manifest, request, serving, with_golden, write_features

OF_ACME = {"tenant_id": "acme", "predictor": PREDICTOR}
GUARDED = {"canary_minimum_count": 20, "canary_max_latency_ratio": 1000.0}


@pytest.fixture
def keys(tmp_path):
    return generate_key_pair(tmp_path / "keys")


def publish(store, pair, bias, tenant_id="", channel="champion"):
    content = graph(bias)
    made = with_golden(manifest(content, tenant_id), content)
    opened = ModelStoreSettings(model_store=str(store), model_signing_key=pair.private_key).open()
    return opened.publish(made, content, channel)


class Refusals:
    """What a server counts, by reason."""

    def __init__(self):
        self._reader = InMemoryMetricReader()
        self.telemetry = Telemetry(None, MeterProvider([self._reader]))

    def read(self):
        data, found = self._reader.get_metrics_data(), Counter()
        for resource in data.resource_metrics if data else ():
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == names.MODEL_REFUSALS:
                    for point in metric.data.data_points:  # one for each predictor
                        found[point.attributes[names.REASON]] += point.value
        return found


async def until(condition, server=None, version=None):
    """Wait for it; meanwhile a version, and no other, answers."""
    deadline = time.monotonic() + 60
    while not condition():
        if server is not None:
            assert (await server.predict(request())).provenance.model_version == version
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def serves(server, version):
    return await server.eventually(lambda answer: answer.provenance.model_version == version)


async def test_an_old_version_put_back_by_others_never_serves(redis_url, store, keys, tmp_path, monkeypatch):
    list_often(monkeypatch)
    write_features(redis_url)
    old, new = (publish(store, keys, bias) for bias in (10, 20))
    refusals = Refusals()
    changes = {"model_trusted_keys": (keys.public_key,), "model_pointer_memory": tmp_path / "moves.sqlite"}
    async with serving(redis_url, store, refusals.telemetry, **changes) as server:
        await serves(server, new.version)
        # Whoever may write to the store, without a key: points the channel at an old version that is signed …
        ModelStore.open(store).promote(PREDICTOR, None, old.version)
        await until(lambda: refusals.read()["UntrustedPointer"] > 0, server, new.version)
        # … or takes the newest moves away.
        for generation in (2, 3):
            (store / new.scope.pointer_key("champion", generation)).unlink()
        await until(lambda: refusals.read()["RewoundPointer"] > 0, server, new.version)
        assert (await server.predict(request())).provenance.model_version == new.version
    async with serving(redis_url, store, refusals.telemetry, **changes) as server:
        assert (await server.predict(request())).provenance.model_version == new.version
    # Without a memory over restarts the store is believed.
    async with serving(redis_url, store, model_trusted_keys=(keys.public_key,)) as server:
        assert (await server.predict(request())).provenance.model_version == old.version


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    found = failure(error.value)
    return found.code, found.reason


async def test_a_server_moves_channels_only_with_a_key_for_it(redis_url, store, keys, tmp_path):
    operator = generate_key_pair(tmp_path / "operator")
    write_features(redis_url)
    old = publish(store, keys, 10, "acme")
    new = publish(store, keys, 20, "acme")
    trusted = {"model_trusted_keys": (keys.public_key, operator.public_key)}
    promote, rollback = messages.PromoteModelRequest, messages.RollbackModelRequest
    authority = (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_AUTHORITY_MISSING")
    async with serving(redis_url, store, **trusted) as server, grpc.aio.insecure_channel(server.target) as link:
        models = ModelServiceStub(link)
        await serves(server, new.version)
        before = sorted(store.rglob("*"))
        assert await refused(models.PromoteModel(promote(**OF_ACME, version=old.version))) == authority
        assert await refused(models.RollbackModel(rollback(**OF_ACME))) == authority
        assert sorted(store.rglob("*")) == before
        assert (await server.predict(request())).provenance.model_version == new.version
    trusted |= {"model_operator_key": operator.private_key}
    async with serving(redis_url, store, **trusted) as server, grpc.aio.insecure_channel(server.target) as link:
        models = ModelServiceStub(link)
        await models.RollbackModel(rollback(**OF_ACME, detail="slower"))
        await serves(server, old.version)
        await models.PromoteModel(promote(**OF_ACME, version=new.version))
        await serves(server, new.version)
        moves = (await models.GetModel(messages.GetModelRequest(**OF_ACME))).history
    assert [(move.generation, move.previous_version, move.version, move.detail) for move in moves] == [
        (4, old.version, new.version, ""),
        (3, new.version, old.version, "slower"),
        (2, old.version, new.version, ""),
        (1, "", old.version, ""),
    ]
    assert [list(move.key_ids) for move in moves] == [[operator.key_id]] * 2 + [[keys.key_id]] * 2


@pytest.mark.parametrize("has_key", [True, False])
async def test_the_guard_withdraws_a_canary_with_the_same_authority(redis_url, store, keys, has_key, caplog):
    write_features(redis_url)
    publish(store, keys, 10, "acme")
    bad = publish(store, keys, 5000, "acme", "canary")
    operator = ModelStoreSettings(model_store=str(store), model_signing_key=keys.private_key).open()
    operator.promote(PREDICTOR, "acme", bad.version, "canary", weight=1.0)
    changes = GUARDED | {"model_trusted_keys": (keys.public_key,)}
    if has_key:
        changes["model_operator_key"] = keys.private_key
    reader = ModelStoreSettings(model_store=str(store), model_trusted_keys=(keys.public_key,)).open()

    def withdrawn():
        last = reader.history(PREDICTOR, "acme", "canary")[0]
        return last.withdrawn and last.actor == "canary guard"

    async with serving(redis_url, store, **changes) as server:
        deadline = time.monotonic() + 60
        while not (withdrawn() if has_key else "in this process only: moving a channel takes a key" in caplog.text):
            await server.predict(request(lines=0))
            assert time.monotonic() < deadline
        assert (await server.predict(request(lines=0))).provenance.model_version != bad.version
    assert withdrawn() == has_key


async def test_other_keys_take_effect_while_it_serves(redis_url, store, tmp_path, caplog):
    """A key that is gone takes its models with it within seconds, without the store; a new one brings what waited."""
    first, second = (generate_key_pair(tmp_path / "keys", name) for name in ("first", "second"))
    write_features(redis_url)
    world = publish(store, second, 10)
    own = publish(store, first, 20, "acme")
    refusals = Refusals()
    changes = {"model_trusted_keys": (tmp_path / "keys",)}
    async with serving(redis_url, store, refusals.telemetry, **changes) as server:
        await serves(server, own.version)
        pem = first.public_key.read_bytes()
        began = time.monotonic()
        first.public_key.unlink()
        answer = await serves(server, world.version)
        assert within(time.monotonic() - began, 5.0)
        assert answer.provenance.fallback_reason in (
            FallbackReason.FALLBACK_REASON_MODEL_LOADING,
            FallbackReason.FALLBACK_REASON_MODEL_UNAVAILABLE,
        )
        assert f"dropped {own.scope.resource_name}" in caplog.text
        assert refusals.read()["UntrustedModel"] >= 1
        # Half-written, it is no key and no reason to drop anything.
        first.public_key.write_bytes(pem[: len(pem) // 2])
        await until(lambda: "the trusted keys stay as they were" in caplog.text, server, world.version)
        first.public_key.write_bytes(pem)
        assert (await serves(server, own.version)).provenance.fallback_reason == 0
        # Signed by the other key too, nothing is dropped when the first goes.
        both = ModelStoreSettings(
            model_store=str(store), model_signing_key=second.private_key, model_trusted_keys=(tmp_path / "keys",)
        ).open()
        both.sign(PREDICTOR, "acme", own.version)
        assert list(both.sign_channel(ModelScope(PREDICTOR, "acme"), "champion"))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            first.public_key.unlink()
            await until(lambda: "other keys are trusted now" in caplog.text, server, own.version)
            for _ in range(20):
                assert (await server.predict(request())).provenance.model_version == own.version
                await asyncio.sleep(0.02)
        assert "dropped" not in caplog.text
        # The last one goes: nobody is trusted, and nothing is answered by a model.
        second.public_key.unlink()
        await server.eventually(lambda answer: not answer.provenance.model_version)
