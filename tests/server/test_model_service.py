"""The service that moves channels: under load, by whom, and what its watchers are told."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from conductor.model.v1 import model_service_pb2 as messages
from conductor.model.v1.model_service_pb2_grpc import ModelServiceStub
from conductor.prediction.v1 import prediction_service_pb2_grpc
from conductor_model_store import ModelScope
from conductor_rpc.exceptions import ModelUnknown
from conductor_server.app import application
from conductor_server.models.control import ModelControl
from machine import within
from rpc.harness import Keys, bearer, failure
from server.harness import KNOWN_MODELS, PREDICTOR, serving, settings, write_features
from server.many import on
from server.secured import secured_settings

ROW = (100.0, 0.0, 60.0, 2.0)
CALM = {"canary_minimum_count": 1_000_000}
"""For tests that are not about the guard."""


async def test_promoting_and_rolling_back_under_load_fails_no_request(redis_url, store, fleet):
    """By the service; every change takes effect within two seconds, every answer is of the model that it names."""
    write_features(redis_url)
    versions = [fleet.publish(bias, "acme").version for bias in (10, 20, 30)]
    async with serving(redis_url, store, **CALM) as server, grpc.aio.insecure_channel(server.target) as link:
        await server.eventually(lambda a: a.provenance.model_version == versions[2], on("main"))
        control, stop, answers = ModelServiceStub(link), asyncio.Event(), []

        async def ask(branch):
            while not stop.is_set():
                answers.append(await server.predict(on(branch)))

        asking = [asyncio.ensure_future(ask(branch)) for branch in "abcd"]
        of_acme = {"tenant_id": "acme", "predictor": PREDICTOR}
        for version in (versions[0], versions[1], None, versions[2], None, versions[1], versions[0], None):
            if version is None:
                moved = await control.RollbackModel(messages.RollbackModelRequest(**of_acme))
            else:
                moved = await control.PromoteModel(messages.PromoteModelRequest(**of_acme, version=version))
            began = time.monotonic()
            await server.eventually(lambda a, v=moved.channel.version: a.provenance.model_version == v, on("main"))
            assert within(time.monotonic() - began, 2.0)
        stop.set()
        await asyncio.gather(*asking)
    assert {answer.provenance.model_version for answer in answers} == set(versions)
    assert all(fleet.is_right("acme", answer, ROW) for answer in answers)


@asynccontextmanager
async def secured(redis_url, store, tmp_path):
    """A server with TLS and tokens; gives a stub, a stub of predictions and the keys."""
    keys = Keys()
    authority, changes = secured_settings(tmp_path, keys)
    async with (
        application(settings(redis_url, store, **changes)) as server,
        grpc.aio.secure_channel(f"127.0.0.1:{server.port}", authority.credentials()) as link,
    ):
        yield ModelServiceStub(link), prediction_service_pb2_grpc.PredictionServiceStub(link), keys


async def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    found = failure(error.value)
    return found.code, found.reason


async def test_a_tenant_moves_its_own_models_and_global_ones_only_with_the_scope(redis_url, store, fleet, tmp_path):
    own = [fleet.publish(bias, "acme").version for bias in (10, 20)]
    other = [fleet.publish(bias, "zeta").version for bias in (30, 40)]
    world = [fleet.publish(bias).version for bias in (50, 60)]
    async with secured(redis_url, store, tmp_path) as (models, _, keys):
        acme = bearer(keys.token("acme", scope="openid operate"))
        admin = bearer(keys.token("acme", scope="operate models:admin"))
        of_acme = {"tenant_id": "acme", "predictor": PREDICTOR}
        found = await models.ListModels(messages.ListModelsRequest(tenant_id="acme"), metadata=acme)
        assert {channel.model_name: channel.version for channel in found.channels} == {
            f"models/{PREDICTOR}/global": world[1],
            f"models/{PREDICTOR}/tenants/acme": own[1],
        }
        shown = await models.GetModel(messages.GetModelRequest(**of_acme), metadata=acme)
        assert [stored.version for stored in shown.versions] == own[::-1]
        assert [(move.generation, move.version, move.reason) for move in shown.history] == [
            (2, own[1], "publish"),
            (1, own[0], "publish"),
        ]
        shown = await models.GetModel(messages.GetModelRequest(**of_acme, global_model=True), metadata=acme)
        assert shown.channels[0].version == world[1]
        promote = messages.PromoteModelRequest
        moved = await models.PromoteModel(
            promote(**of_acme, version=own[0], channel="canary", weight=0.25), metadata=acme
        )
        assert (moved.channel.channel, moved.channel.weight) == ("canary", 0.25)
        moved = await models.PromoteModel(promote(**of_acme, version="canary"), metadata=acme)
        assert (moved.channel.version, moved.channel.generation) == (own[0], 3)
        moved = await models.WithdrawModel(
            messages.WithdrawModelRequest(**of_acme, channel="canary", detail="enough"), metadata=acme
        )
        assert (moved.channel.version, moved.channel.detail) == ("", "enough")
        before = sorted((str(path), path.read_bytes()) for path in store.rglob("*") if path.is_file())
        code, denied = grpc.StatusCode, grpc.StatusCode.PERMISSION_DENIED
        # Another tenant's, whatever the scope; the global one without it.
        for token in (acme, admin):
            theirs = promote(tenant_id="zeta", predictor=PREDICTOR, version=other[0])
            assert await refused(models.PromoteModel(theirs, metadata=token)) == (denied, "TENANT_MISMATCH")
            ask = messages.GetModelRequest(tenant_id="zeta", predictor=PREDICTOR)
            assert await refused(models.GetModel(ask, metadata=token)) == (denied, "TENANT_MISMATCH")
        admin_only = (denied, "MODEL_ADMIN_REQUIRED")
        everyones = of_acme | {"global_model": True}
        assert await refused(models.PromoteModel(promote(**everyones, version=world[0]), metadata=acme)) == admin_only
        rollback = messages.RollbackModelRequest
        assert await refused(models.RollbackModel(rollback(**everyones), metadata=acme)) == admin_only
        withdraw = messages.WithdrawModelRequest(**everyones, channel="canary")
        assert await refused(models.WithdrawModel(withdraw, metadata=acme)) == admin_only
        assert await refused(models.PromoteModel(promote(**of_acme, version=other[0]), metadata=acme)) == (
            code.NOT_FOUND,
            "MODEL_NOT_FOUND",
        )
        for fields in (
            {"version": own[0], "weight": 1.5},
            {"version": own[0], "weight": 0.5},  # the champion has none
            {"version": own[0], "channel": "other"},
            {"version": ""},
        ):
            assert await refused(models.PromoteModel(promote(**of_acme, **fields), metadata=acme)) == (
                code.INVALID_ARGUMENT,
                "INVALID_FIELD",
            )
        assert await refused(models.ListModels(messages.ListModelsRequest(tenant_id="acme"))) == (
            code.UNAUTHENTICATED,
            "CREDENTIALS_INVALID",
        )
        assert sorted((str(path), path.read_bytes()) for path in store.rglob("*") if path.is_file()) == before
        moved = await models.RollbackModel(rollback(**everyones), metadata=admin)
        assert moved.channel.version == world[0]


async def test_damaged_versions_are_not_promoted(redis_url, store, fleet):
    first, second = fleet.publish(10, "acme"), fleet.publish(20, "acme")
    (store / second.scope.version_key(first.version)).write_bytes(b"?")
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as link:
        ask = messages.PromoteModelRequest(tenant_id="acme", predictor=PREDICTOR, version=first.version)
        found = await refused(ModelServiceStub(link).PromoteModel(ask))
    assert found == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_DAMAGED")
    assert fleet.store.resolve(PREDICTOR, "acme") == second.pointer


async def test_a_watcher_is_told_everything_then_its_own_changes(redis_url, store, fleet):
    fleet.publish(10)
    fleet.publish(20, "acme")
    fleet.publish(30, "zeta")
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as link:
        stream = ModelServiceStub(link).WatchModels(messages.WatchModelsRequest(tenant_id="acme"), timeout=60)
        first = await stream.read()
        assert [channel.model_name for channel in first.channels] == [
            f"models/{PREDICTOR}/global",
            f"models/{PREDICTOR}/tenants/acme",
        ]
        fleet.publish(31, "zeta")
        version = fleet.publish(21, "acme", channel="shadow").version
        told = await stream.read()
        assert [(channel.channel, channel.version) for channel in told.channels] == [("shadow", version)]
        fleet.store.withdraw(PREDICTOR, "acme", "shadow", "seen enough")
        [channel] = (await stream.read()).channels
        assert (channel.version, channel.reason, channel.detail) == ("", "withdraw", "seen enough")
        stream.cancel()


async def test_watchers_take_no_places_of_calls(redis_url, store, fleet):
    """They may be open for days: a tenant's would leave no room for anybody's questions."""
    fleet.publish(10)
    few = {"max_in_flight_count": 2, "max_stream_count": 12}
    async with (
        application(settings(redis_url, store, **few), known_models_directory=KNOWN_MODELS) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as link,
    ):
        models = ModelServiceStub(link)
        streams = [models.WatchModels(messages.WatchModelsRequest(tenant_id="acme"), timeout=60) for _ in range(6)]
        for stream in streams:
            assert (await stream.read()).channels
        assert server.in_flight_count == len(streams)
        await models.ListModels(messages.ListModelsRequest(tenant_id="acme"), timeout=30)
        too_many = models.WatchModels(messages.WatchModelsRequest(tenant_id="acme"), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError, match="share of 6"):
            await too_many.read()
        for stream in streams:
            stream.cancel()


async def test_a_stopping_server_ends_its_streams(redis_url, store, fleet):
    fleet.publish(10)
    async with serving(redis_url, store) as server:
        link = grpc.aio.insecure_channel(server.target)
        stream = ModelServiceStub(link).WatchModels(messages.WatchModelsRequest(tenant_id="acme"))
        await stream.read()
        began = time.monotonic()
    assert time.monotonic() - began < 30, "as long as streams are open otherwise: without end"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stream.read()
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    await link.close()


async def test_a_store_that_hangs_holds_up_nothing_else():
    """What requests do beside the loop has the loop's own threads."""
    goes_on = threading.Event()

    class Hanging:
        def channels(self, predictor: str, tenant_id: str) -> list[str]:
            goes_on.wait(60)
            return []

    control = ModelControl(Hanging(), None, [PREDICTOR])
    try:
        asked = [asyncio.ensure_future(control.model(ModelScope(PREDICTOR, "acme"))) for _ in range(100)]
        await asyncio.sleep(0)  # they begin
        async with asyncio.timeout(30):
            await asyncio.to_thread(int)
    finally:
        goes_on.set()
    assert {type(found) for found in await asyncio.gather(*asked, return_exceptions=True)} == {ModelUnknown}
    control.close()
