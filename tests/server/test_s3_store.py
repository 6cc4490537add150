"""A server whose model store is S3, from the first model to the store's return after an outage.

What stands for S3 is moto, a server that imitates its interface on this machine; it is a process of its own, so that it
can be taken away.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request

import pytest

import ending
from conductor_model_store import ModelStoreUnavailable
from conductor_model_store.settings import ModelStoreSettings
from conductor_model_store.signing_keys import generate_key_pair
from machine import within
from server.harness import PREDICTOR, graph, manifest, request, serving, with_golden, write_features
from server.ports import free_ports

URL = "s3://models/of/ours"


class Moto:
    """Takes connections on one port, and can be away: then none is taken. Its objects live as long as its process."""

    def __init__(self, log):
        self.port = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def make_bucket(self, name):
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()  # noqa: S310
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return


class Way:
    """A way to it that can be closed: what is under way breaks off, and nobody gets in."""

    def __init__(self, port):
        self._to, self._server, self._links = port, None, set()
        self.port = free_ports(1)

    async def open(self):
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def close(self):
        self._server.close()
        for link in list(self._links):
            link.transport.abort()

    async def _pass(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        links = {writer, back}
        self._links |= links

        async def copy(source, target):
            try:
                while data := await source.read(1 << 16):
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))
        self._links -= links


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with (tmp_path_factory.mktemp("moto") / "log").open("w") as log:
        moto = Moto(log)
        try:
            moto.make_bucket("models")
            yield moto
        finally:
            moto.process.kill()
            moto.process.wait(60)


@pytest.fixture
async def way(moto, monkeypatch):
    way = Way(moto.port)
    await way.open()
    values = {"ENDPOINT_URL": f"http://127.0.0.1:{way.port}", "REGION": "us-east-1"}
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL", "REGION"):
        monkeypatch.setenv(f"AWS_{name}", values.get(name, "test"))
    yield way
    await way.close()


async def conductor(*arguments, **environment):
    """Run the command against the store on S3."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conductor_client.command", *arguments),
        env=os.environ | {"CONDUCTOR_MODEL_STORE": URL, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, problem = await asyncio.wait_for(process.communicate(), 60)
    finally:
        await ending.kill(process)
    assert process.returncode == 0, problem.decode()
    return out.decode()


async def test_publish_promote_roll_back_and_an_outage(redis_url, way, tmp_path, caplog):
    keys = generate_key_pair(tmp_path / "keys")
    trust = {
        "CONDUCTOR_MODEL_SIGNING_KEY": str(keys.private_key),
        "CONDUCTOR_MODEL_TRUSTED_KEYS": str(keys.public_key),
    }
    write_features(redis_url)

    def publish(bias, **more):
        """As training does."""
        content = graph(bias)
        settings = ModelStoreSettings(
            model_store=URL, model_signing_key=keys.private_key, model_trusted_keys=(keys.public_key,)
        )
        return settings.open().publish(with_golden(manifest(content), content), content, **more).version

    first = await asyncio.to_thread(publish, 10)
    async with serving(redis_url, URL, model_trusted_keys=(keys.public_key,)) as server:

        async def serves(version):
            await server.eventually(lambda answer: answer.provenance.model_version == version)

        await serves(first)
        second = await asyncio.to_thread(publish, 20)
        await serves(second)
        await conductor("models", "rollback", PREDICTOR, **trust)
        await serves(first)
        await conductor("models", "promote", PREDICTOR, second, "--reason", "better", **trust)
        await serves(second)
        assert "better" in await conductor("models", "show", PREDICTOR, **trust)

        await way.close()
        deadline = time.monotonic() + 60
        while "the model store can't be read" not in caplog.text:
            assert time.monotonic() < deadline
            began = time.monotonic()
            answer = await server.predict(request())
            assert (answer.provenance.model_version, answer.provenance.fallback_reason) == (second, 0)
            assert within(time.monotonic() - began, 2.0), "a request waits for no store"
            await asyncio.sleep(0.02)
        with pytest.raises(ModelStoreUnavailable):
            await asyncio.to_thread(publish, 30)
        assert (await server.predict(request())).provenance.model_version == second

        await way.open()
        third = await asyncio.to_thread(publish, 30)
        await serves(third)
