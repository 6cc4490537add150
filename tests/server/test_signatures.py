"""A server that knows whom to trust: what others publish never serves, and the model before it does."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor_model_store import InvalidKey, ModelStore
from conductor_model_store.settings import ModelStoreSettings
from conductor_model_store.signing import sign_all, sign_channels
from conductor_model_store.signing_keys import generate_key_pair
from conductor_rpc import names
from conductor_rpc.settings import SettingsInvalid
from conductor_rpc.telemetry import Telemetry
from conductor_server.settings import ServerSettings
from server.harness import graph, list_often, manifest, publish, request, serving, settings, with_golden, write_features

# What anybody can do who may write to the store: publish by a process without the key that signs models.
PUBLISHER = """
import sys
from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store.settings import ModelStoreSettings
manifest, graph = (bytes.fromhex(argument) for argument in sys.argv[2:])
store = ModelStoreSettings(model_store=sys.argv[1]).open()
print(store.publish(ModelManifest.FromString(manifest), graph).version)
"""


@pytest.fixture
def keys(tmp_path):
    return generate_key_pair(tmp_path / "keys")


def _model(bias):
    content = graph(bias)
    return with_golden(manifest(content), content), content


def _publish_signed(store, keys, bias):
    return ModelStoreSettings(model_store=str(store), model_signing_key=keys.private_key).open().publish(*_model(bias))


@pytest.mark.parametrize("moves", [False, True], ids=["without keys", "with a key that only moves channels"])
async def test_an_unsigned_model_of_another_process_does_not_replace_a_signed_one(
    redis_url, store, keys, tmp_path, caplog, moves
):
    operator = generate_key_pair(tmp_path / "operator")
    trusted = {
        "model_trusted_keys": (keys.public_key,),
        "model_trusted_operator_keys": (keys.public_key, operator.public_key),
    }
    environment = os.environ | ({"CONDUCTOR_MODEL_OPERATOR_KEY": str(operator.private_key)} if moves else {})
    good = _publish_signed(store, keys, 10)
    write_features(redis_url)
    reader = InMemoryMetricReader()
    telemetry = Telemetry(None, MeterProvider([reader]))
    with caplog.at_level(logging.WARNING):
        async with serving(redis_url, store, telemetry, **trusted) as server:
            assert (await server.predict(request())).provenance.model_version == good.version
            result, content = _model(20)
            command = [sys.executable, "-c", PUBLISHER, str(store), result.SerializeToString().hex(), content.hex()]
            run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=60, env=environment)
            done = await asyncio.to_thread(run, command)
            assert done.returncode == 0, done.stderr
            unsigned = done.stdout.strip()
            assert ModelStore.open(store).resolve("build-duration").version == unsigned
            deadline = time.monotonic() + 60
            while "is not signed" not in caplog.text:
                assert (await server.predict(request())).provenance.model_version == good.version
                assert time.monotonic() < deadline, caplog.text
                await asyncio.sleep(0.01)
            assert (await server.predict(request())).provenance.model_version == good.version
            better = _publish_signed(store, keys, 30)
            await server.eventually(lambda answer: answer.provenance.model_version == better.version)
    points = [
        dict(point.attributes)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == names.MODEL_REFUSALS
        for point in metric.data.data_points
        if point.value
    ]
    assert {point[names.REASON] for point in points} == {"UntrustedModel" if moves else "UntrustedPointer"}


async def test_after_a_restart_the_last_signed_model_serves(redis_url, store, keys):
    good = _publish_signed(store, keys, 10)
    publish(store, 20)
    write_features(redis_url)
    async with serving(redis_url, store, model_trusted_keys=(keys.public_key,)) as server:
        assert (await server.predict(request())).provenance.model_version == good.version


async def test_signing_what_is_in_use_makes_it_serve(redis_url, store, keys):
    first = _publish_signed(store, keys, 10)
    moves_only = ModelStoreSettings(model_store=str(store), model_operator_key=keys.private_key)
    second = moves_only.open().publish(*_model(20))
    async with serving(redis_url, store, model_trusted_keys=(keys.public_key,)) as server:
        assert (await server.predict(request())).provenance.model_version == first.version
        settings = ModelStoreSettings(model_store=str(store), model_signing_key=keys.private_key)
        settings.open().sign("build-duration", None, second.version)
        await server.eventually(lambda answer: answer.provenance.model_version == second.version)


async def test_a_store_from_before_moves_were_signed_serves_once_they_are(redis_url, store, keys, monkeypatch):
    list_often(monkeypatch)
    old = publish(store, 10)
    write_features(redis_url)
    settings = ModelStoreSettings(model_store=str(store), model_signing_key=keys.private_key)
    async with serving(redis_url, store, model_trusted_keys=(keys.public_key,)) as server:
        assert not (await server.predict(request())).provenance.model_version
        assert [finding.problem for finding in (*sign_all(settings.open()), *sign_channels(settings.open()))] == [
            None
        ] * 2
        await server.eventually(lambda answer: answer.provenance.model_version == old.version)


@pytest.fixture
def secure(tmp_path):
    """TLS and tokens as they must be; only the models' keys are open."""
    file = tmp_path / "x"
    return {"tls_certificate_file": file, "tls_key_file": file, "jwks": str(file), "issuer": "https://id.example"}


def test_without_trusted_keys_it_must_be_said_so(secure, keys):
    with pytest.raises(
        SettingsInvalid, match=r"to trust models by.*CONDUCTOR_MODEL_TRUSTED_KEYS.*keygen.*--allow-unsigned-models"
    ):
        ServerSettings(**secure).require_security()
    ServerSettings(**secure, allow_unsigned_models=True).require_security()
    ServerSettings(**secure, model_trusted_keys=(keys.public_key,)).require_security()
    ServerSettings(insecure=True).require_security()
    with pytest.raises(SettingsInvalid, match="contradicts"):
        ServerSettings(**secure, allow_unsigned_models=True, model_trusted_keys=(keys.public_key,)).require_security()


def test_the_command_refuses_to_start(secure, store, keys):
    flags = {"--tls-cert": "tls_certificate_file", "--tls-key": "tls_key_file", "--jwks": "jwks", "--issuer": "issuer"}
    command = [sys.executable, "-m", "conductor_client.command", "serve", "--port", "0", "--model-store", str(store)]
    for flag, name in flags.items():
        command += [flag, str(secure[name])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: serving needs keys to trust models by")
    done = subprocess.run(
        [*command, "--model-trusted-keys", str(keys.private_key)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "is no public key" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_server_whose_trusted_keys_can_not_be_read_does_not_start(redis_url, store, tmp_path):
    with pytest.raises(InvalidKey, match="absent"):
        async with serving(redis_url, store, model_trusted_keys=(tmp_path / "absent.pem",)):
            pass


def test_workers_are_told_the_keys(redis_url, store, keys):
    before = settings(redis_url, store, model_trusted_keys=(keys.public_key,))
    assert ServerSettings.model_validate_json(before.model_dump_json()) == before
