"""API keys: what opens, what does not, and that the file is whole whatever happens to those who write it."""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor.model.v1.model_service_pb2 import ListModelsRequest, WatchModelsRequest
from conductor.model.v1.model_service_pb2_grpc import ModelServiceStub
from conductor_rpc import api_keys, replacing, watched_file
from conductor_rpc.api_keys import KeyRing
from conductor_rpc.cli import keys_commands
from conductor_rpc.exceptions import CredentialsInvalid
from conductor_rpc.roles import OPERATE, PREDICT, PUBLISH
from machine import slowness, within
from rpc.harness import bearer, ended, failure, item, items, request, serving
from security.installation import MINE, installation
from server.harness import publish

DAY = timedelta(days=1)
Made = tuple[Path, str]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A file with a key, and the key."""
    file = tmp_path / "keys.json"
    return file, api_keys.create(file, "acme", frozenset({PREDICT}), DAY)[1]


def opens(ring: KeyRing, text: str) -> bool:
    try:
        ring.identify(text)
    except CredentialsInvalid:
        return False
    return True


def guesses(key: str) -> list[str]:
    """Texts that are near a key."""
    rng = random.Random(5)
    found = [key[:at] + rng.choice("0123456789abcdef_ \0é") + key[at + 1 :] for at in range(len(key))]
    found += [key[:-1], key + "0", f"{key}\n", key.upper(), key[:23] + "0" * 64, key.replace("_", ""), f" {key}", ""]
    return [guess for guess in found if guess != key]


def test_only_the_key_opens(made, monkeypatch):
    file, key = made
    ring = KeyRing(file)
    assert opens(ring, key)
    assert [guess for guess in guesses(key) if opens(ring, guess)] == []
    # The control: who compares only the beginning is found.
    monkeypatch.setattr(api_keys, "_digest", lambda secret: f"{secret[:60]:0<64}")
    broken = file.with_name("broken.json")
    short = api_keys.create(broken, "acme", frozenset({PREDICT}), DAY)[1]
    assert any(opens(KeyRing(broken), guess) for guess in guesses(short))


def test_no_other_text_opens(made):
    ring = KeyRing(made[0])

    digits = st.integers(0, 16**64 - 1).map(lambda number: f"{number:064x}")

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(max_size=100) | st.builds("conductor_{:.12}_{}".format, digits, digits))
    def opens_not(text):
        assert not opens(ring, text)

    opens_not()


def test_unknown_ids_cost_as_much_as_wrong_secrets(made, monkeypatch):
    file, key = made
    ring, compared = KeyRing(file), []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append(len(b)), compare(a, b))[1])
    for text in (key, key[:-1] + ("0" if key[-1] != "0" else "1"), f"conductor_{'0' * 12}_{'0' * 64}"):
        opens(ring, text)
    assert compared == [64, 64, 64]


def test_the_file_and_the_list_tell_no_key(made):
    file, key = made
    assert key.split("_")[2] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    listed = CliRunner().invoke(keys_commands, ["list", "--file", str(file), "-o", "json"])
    assert key.split("_")[2] not in listed.output
    assert [found["state"] for found in json.loads(listed.output)] == ["active"]


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDUCTOR_API_KEYS_FILE", str(tmp_path / "keys.json"))
    monkeypatch.setenv("CONDUCTOR_AUDIT_FILE", str(tmp_path / "audit.log"))

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(keys_commands, list(words))
        assert result.exit_code == code, result.output
        return result.stdout

    made = json.loads(run("create", "acme", "--role", "publish", "--role", "predict", "--days", "1", "-o", "json"))
    assert KeyRing(tmp_path / "keys.json").identify(made["key"]).scopes == {PREDICT, PUBLISH}
    for name, arguments in {"create": ("acme", "-r", "owner"), "revoke": ("0" * 12,)}.items():
        run(name, *arguments, code=1)
    run("revoke", made["key"], code=2)  # a secret is no id
    assert json.loads(run("revoke", made["key_id"], "-o", "json"))["state"] == "revoked"
    assert json.loads(run("revoke", made["key_id"], "-o", "json"))["state"] == "revoked"
    assert not opens(KeyRing(tmp_path / "keys.json"), made["key"])
    for name in ("create", "list", "revoke"):
        assert "conductor keys" in run(name, "--help")
    told = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [(line["method"], line["phase"], line.get("code")) for line in told] == [
        *(("keys create", "begun", None), ("keys create", "ended", "OK")),
        *(("keys create", "begun", None), ("keys create", "ended", "FAILED")),
        *(("keys revoke", "begun", None), ("keys revoke", "ended", "FAILED")),
        *(("keys revoke", "begun", None), ("keys revoke", "ended", "OK")) * 2,
    ]
    assert told[1]["resource"] == {"tenant_id": "acme", "roles": "predict:publish", "key_id": made["key_id"]}
    assert made["key"].split("_")[2] not in (tmp_path / "audit.log").read_text()
    monkeypatch.setenv("CONDUCTOR_AUDIT_FILE", "/dev/full")
    before = (tmp_path / "keys.json").read_bytes()
    run("create", "acme", "--role", "publish", code=1)
    assert (tmp_path / "keys.json").read_bytes() == before, "what can't be noted is not done"


async def _refused_within(seconds: float, call: Callable[[], object]) -> None:
    """Ask until it is refused as unauthenticated."""
    began = time.monotonic()
    while True:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            assert failure(error).reason == "CREDENTIALS_INVALID"
            assert within(time.monotonic() - began, seconds)
            return
        assert time.monotonic() - began < 60


async def test_a_key_lives_and_ends_while_the_server_runs(secure, authority, made):
    file, key = made
    secured = {name: value for name, value in secure.items() if name not in {"jwks", "issuer", "audience"}}
    async with (
        serving(**secured, insecure=False, api_keys_file=file) as running,
        running.stub(authority.credentials()) as stub,
    ):

        async def ask(with_key: str = key, tenant: str = "acme") -> None:
            await stub.PredictBuildDuration(request(tenant), metadata=bearer(with_key))

        await ask()
        lifetime = 3 * slowness()
        created, later = api_keys.create(file, "zeta", frozenset({PREDICT}), timedelta(seconds=lifetime))
        began = time.monotonic()
        while True:
            try:
                await ask(later, "zeta")
                break
            except grpc.aio.AioRpcError:
                assert time.monotonic() - began < 60
        assert within(time.monotonic() - began, 1.0), "a new key opens within a second"
        stream = stub.StreamBuildDurationPredictions(metadata=bearer(key), timeout=60)
        await stream.write(items(item(1)))
        await stream.read()
        api_keys.revoke(file, key.split("_")[1])
        await _refused_within(1.0, ask)
        await stream.write(items(item(2)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:  # an open stream ends too
            await stream.read()
        assert failure(refused.value).reason == "CREDENTIALS_INVALID"
        await _refused_within(lifetime + 7, lambda: ask(later, "zeta"))
        assert time.time() >= created.expire_time.timestamp(), "and not before its time"


async def test_open_streams_end_with_the_key(tmp_path, redis_url, store):
    publish(store, 10, MINE)
    async with installation(tmp_path, redis_url, store) as running:
        made = running.credentials
        key = made.key(roles=[PREDICT, PUBLISH])
        plain = made.certificate("nobody")
        models = ModelServiceStub(await running.channel(running.predictions, plain))
        watched = models.WatchModels(WatchModelsRequest(tenant_id=MINE), metadata=bearer(key), timeout=60)
        assert (await watched.read()).channels
        events = await running.channel(running.events, plain)
        published = EventServiceStub(events).PublishEvents(metadata=bearer(key), timeout=60)
        await published.write(PublishEventsRequest(tenant_id=MINE))
        async with asyncio.timeout(60):
            while not running.published:  # noqa: ASYNC110 - the ingestion tells no one
                await asyncio.sleep(0.01)
        api_keys.revoke(made.api_keys, key.split("_")[1])
        ask = ListModelsRequest(tenant_id=MINE)
        await _refused_within(1.0, lambda: models.ListModels(ask, metadata=bearer(key)))
        publish(store, 20, MINE)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await watched.read()
        assert failure(told.value).reason == "CREDENTIALS_INVALID", "nothing is told any more"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await published.write(PublishEventsRequest(tenant_id=MINE))
            await ended(published)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert len(running.published) == 1


def test_a_file_that_can_not_be_used_holds_for_a_while_and_then_opens_nothing(made, monkeypatch):
    file, key = made
    monkeypatch.setattr(watched_file, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watched_file, "_PATIENCE_SECONDS", 0.3)
    whole = file.read_bytes()
    for damage in (whole[:-20], b"[]", whole.replace(b"predict", b"reign"), b'{"keys": [{}]}', None):
        ring = KeyRing(file)
        file.unlink() if damage is None else file.write_bytes(damage)
        began = time.monotonic()
        assert opens(ring, key), "it may be half-written"
        while opens(ring, key):
            assert time.monotonic() - began < 60
        file.write_bytes(whole)
        assert opens(ring, key)


def _lost(file: Path, writers: int = 5, each: int = 3) -> int:
    """How many of the keys that are made at once, and of the revocations, do not stand in the file."""

    def write(number: int) -> list[str]:
        found = [api_keys.create(file, f"t{number}", frozenset({PUBLISH}), DAY)[0].key_id for _ in range(each)]
        api_keys.revoke(file, found[0])
        return found

    with ThreadPoolExecutor(writers) as pool:
        made = [key for found in pool.map(write, range(writers)) for key in found]
    keys = {key.key_id: key for key in api_keys.read(file)}
    revoked = sum(key.revoke_time is not None for key in keys.values())
    return len(set(made) - set(keys)) + writers - revoked


def test_commands_at_once_lose_nothing(tmp_path):
    file = tmp_path / "keys.json"
    assert _lost(file) == 0
    code = "from conductor_rpc.cli import keys_commands as k; k()"
    command = [sys.executable, "-c", code, "create", "acme", "-r", "publish", "-f", str(file)]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(api_keys.read(file)) == 17
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_without_the_lock_keys_would_be_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(replacing.fcntl, "flock", lambda *_: None)
    file = tmp_path / "keys.json"
    api_keys.create(file, "acme", frozenset({OPERATE}), DAY)
    with replacing.changing(file) as change:
        api_keys.create(file, "acme", frozenset({OPERATE}), DAY)  # another command, meanwhile
        change.content += b"\n"
    assert len(api_keys.read(file)) == 1, "the control: what the check above must find"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_command_that_fails_leaves_the_file_as_it_was(made, monkeypatch, step):
    file, _ = made
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    if step == "write":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
    with pytest.raises(OSError, match="no space"):
        api_keys.create(file, "acme", frozenset({OPERATE}), DAY)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"keys.json", "keys.json.lock"}


@pytest.mark.parametrize("tenant", ["", "a\0b", "x" * 129])
def test_tenants_that_are_none_get_no_key(tmp_path, tenant):
    with pytest.raises(ValueError, match="tenant_id"):
        api_keys.create(tmp_path / "keys.json", tenant, frozenset({PREDICT}), DAY)
    assert not (tmp_path / "keys.json").exists()
