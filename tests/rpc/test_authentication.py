"""Tokens: what holds, and everything that does not, which is always the same error."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from contextlib import contextmanager

import grpc
import jwt
import pytest

from conductor_rpc.settings import RpcSettings, SettingsInvalid
from rpc.bad_tokens import BAD_TOKENS, claims, now
from rpc.harness import Keys, bearer, failure, request, serving

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def test_everything_that_does_not_hold_is_one_error(secure, keys, authority):
    seen = {}
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        for name, metadata in BAD_TOKENS.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.PredictBuildDuration(request("other"), metadata=metadata(keys))
            seen[name] = failure(caught.value)
        assert running.predictions.calls == 0
        await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))  # the control: a good one passes
        assert running.predictions.calls == 1
    assert {found.code for found in seen.values()} == {UNAUTHENTICATED}, seen
    assert len({str(found) for found in seen.values()}) == 1, "the error must not tell which part did not hold"


async def test_a_remembered_token_still_expires(secure, keys, authority):
    async with serving(**secure, token_leeway_seconds=0) as running, running.stub(authority.credentials()) as stub:
        async with asyncio.timeout(30):
            opened = None
            while opened is not grpc.StatusCode.OK:  # where the machine stands still, one expires on its way
                metadata = bearer(keys.token(exp=now(2)))
                opened = await stub.PredictBuildDuration(request(), metadata=metadata).code()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                await stub.PredictBuildDuration(request(), metadata=metadata)
        assert caught.value.code() is UNAUTHENTICATED


async def test_a_removed_key_no_longer_opens(secure, keys, authority, tmp_path):
    new = Keys("key-2")
    async with serving(**secure, jwks_refresh_seconds=0.05) as running, running.stub(authority.credentials()) as stub:
        old_token, new_token = bearer(keys.token()), bearer(new.token())
        await stub.PredictBuildDuration(request(), metadata=old_token)
        (tmp_path / "jwks.json").write_text(new.jwks())
        await _eventually_refused(stub, old_token)
        await stub.PredictBuildDuration(request(), metadata=new_token)


async def test_symmetric_keys_in_a_set_are_not_used(secure, keys, authority, tmp_path):
    shared = {"kty": "oct", "kid": "shared", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ"}
    key_set = json.loads(keys.jwks())
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [*key_set["keys"], shared]}))
    token = jwt.encode(claims(), b"secret-secret-secret-secret-1234", "HS256", headers={"kid": "shared"})
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(), metadata=bearer(token))
    assert caught.value.code() is UNAUTHENTICATED


async def test_keys_from_an_address(secure, keys, authority):
    with key_server(keys.jwks()) as (url, state):
        settings = {**secure, "jwks": url, "jwks_refresh_seconds": 0.1, "jwks_maximum_age_seconds": 0.6}
        async with serving(**settings) as running, running.stub(authority.credentials()) as stub:
            token = bearer(keys.token())
            for _ in range(20):
                await stub.PredictBuildDuration(request(), metadata=token)
            assert state["fetches"] < 20, "keys are cached"
            state["down"] = True
            await _eventually_refused(stub, token)  # fails closed when they have become too old
            state["down"] = False
            await _eventually_answered(stub, token)


async def test_a_key_server_that_is_down_or_hangs_refuses_without_blocking(secure, keys, authority):
    with key_server(keys.jwks()) as (url, state):
        state["held"].clear()
        async with serving(**{**secure, "jwks": url}) as running, running.stub(authority.credentials()) as stub:
            waiting = stub.PredictBuildDuration(request(), metadata=bearer(keys.token()), timeout=30)
            task = asyncio.ensure_future(_result(waiting))
            with pytest.raises(grpc.aio.AioRpcError) as caught:  # the event loop goes on meanwhile
                await stub.PredictBuildDuration(request(), metadata=bearer("a.b.c"))
            assert caught.value.code() is UNAUTHENTICATED
            state["held"].set()
            await task


def test_key_addresses_must_be_safe():
    from conductor_rpc.jwks import key_set

    with pytest.raises(ValueError, match="https"):
        key_set("http://keys.example/jwks.json", 1, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"jwks": "j", "issuer": "i"},
        {"tls_certificate_file": "c", "tls_key_file": "k"},
        {"insecure": True, "jwks": "j"},
        {"tls_certificate_file": "c", "tls_key_file": "k", "jwks": "j", "issuer": "i", "token_algorithms": ("HS256",)},
    ],
)
def test_does_not_start_without_security(settings):
    with pytest.raises(SettingsInvalid):
        RpcSettings(**settings).require_security()


async def _result(call):
    return await call


async def _eventually_refused(stub, metadata):
    deadline = time.monotonic() + 30
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while time.monotonic() < deadline:
            await stub.PredictBuildDuration(request(), metadata=metadata)
    assert caught.value.code() is UNAUTHENTICATED


async def _eventually_answered(stub, metadata):
    deadline = time.monotonic() + 30
    while True:
        try:
            await stub.PredictBuildDuration(request(), metadata=metadata)
            return
        except grpc.aio.AioRpcError:
            assert time.monotonic() < deadline


@contextmanager
def key_server(content: str):
    state = {"down": False, "held": threading.Event(), "fetches": 0}
    state["held"].set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["fetches"] += 1
            state["held"].wait(20)
            self.send_response(503 if state["down"] else 200)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json", state
        finally:
            server.shutdown()
            thread.join()
