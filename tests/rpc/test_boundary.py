"""The tenant boundary, TLS, message limits: what a caller may not do."""

from __future__ import annotations

import asyncio
import shutil
import ssl

import grpc
import pytest

from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest
from conductor_rpc.settings import SettingsInvalid
from rpc.harness import PREDICTION, Authority, bearer, ended, failure, request, serving

DENIED = grpc.StatusCode.PERMISSION_DENIED


async def test_another_tenant_is_refused_alike_known_or_not(secure, keys, authority):
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        seen = set()
        for tenant in ("other", "no-such-tenant", "Acme", "acme ", "team-acme", "acme\0", "*", "", "a" * 1000):
            for call, message in (
                (stub.PredictBuildDuration, request(tenant)),
                (stub.BatchPredictBuildDurations, BatchPredictBuildDurationsRequest(tenant_id=tenant)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(message, metadata=bearer(keys.token("acme")))
                seen.add(str(failure(caught.value)))
                assert caught.value.code() is DENIED
        assert len(seen) == 1
        assert running.predictions.calls == 0


async def test_every_batch_of_a_stream_is_checked(secure, keys, authority):
    async with serving(**secure) as running, running.channel(authority.credentials()) as channel:
        publish = EventServiceStub(channel).PublishEvents

        async def batches(*tenants):
            for tenant in tenants:
                yield PublishEventsRequest(tenant_id=tenant)

        answer = await ended(publish(batches("acme", "acme"), metadata=bearer(keys.token())))
        assert answer.received_count == 0
        assert running.events.batches == 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ended(publish(batches("acme", "other", "acme"), metadata=bearer(keys.token())))
        assert failure(caught.value).reason == "TENANT_MISMATCH"
        assert running.events.batches == 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ended(publish(batches("acme")))
        assert failure(caught.value).reason == "CREDENTIALS_INVALID"
        with pytest.raises(grpc.aio.AioRpcError) as caught:

            async def too_many():
                yield PublishEventsRequest(tenant_id="acme", events=[{}] * 1001)

            await ended(publish(too_many(), metadata=bearer(keys.token())))
        assert failure(caught.value).metadata == {"limit": "1000"}


async def test_plaintext_and_unknown_authorities_are_refused(secure, keys, authority, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    stranger = Authority(tmp_path / "elsewhere", "stranger")
    async with serving(**secure) as running:
        for credentials in (None, stranger.credentials()):
            async with running.stub(credentials) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()), timeout=30)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert running.predictions.calls == 0


async def test_old_tls_is_refused(secure, authority):
    async with serving(**secure) as running:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.set_alpn_protocols(["h2"])
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", running.server.port, ssl=context)
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # the control
        _, writer = await asyncio.open_connection("127.0.0.1", running.server.port, ssl=context)
        writer.close()


async def test_client_certificates(secure, keys, authority, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    stranger = Authority(tmp_path / "elsewhere", "stranger").issue("client")
    clients = [None, stranger, authority.issue("late", expired=True)]
    async with serving(**secure, tls_client_ca_file=authority.file) as running:
        for client in clients:
            async with running.stub(authority.credentials(client)) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()), timeout=30)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with running.stub(authority.credentials(authority.issue("client"))) as stub:
            await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))


async def test_certificates_rotate_without_a_restart(secure, keys, authority, tmp_path):
    (tmp_path / "new").mkdir()
    new = Authority(tmp_path / "new", "new")
    pair = new.issue("server")
    async with serving(**secure) as running, running.stub(authority.credentials()) as old_stub:
        await old_stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))
        shutil.copy(pair.certificate, secure["tls_certificate_file"])  # half-way: the pair does not match
        async with running.stub(authority.credentials()) as stub:
            await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))
        shutil.copy(pair.key, secure["tls_key_file"])
        async with running.stub(new.credentials()) as stub:
            await stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))
        await old_stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))  # its connection lives on


async def test_unusable_tls_files_are_told(secure, authority):
    other = authority.issue("other")
    with pytest.raises(SettingsInvalid, match="TLS"):
        async with serving(**{**secure, "tls_key_file": other.key}):
            pass


async def test_ten_megabytes_are_refused(secure):
    async with serving() as running, running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PredictBuildDuration(request(actor="x" * 10_000_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in caught.value.details()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # a bomb: 4 KB on the wire, 5 MB inside
            await stub.PredictBuildDuration(request(actor="x" * 5_000_000), compression=grpc.Compression.Gzip)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert running.predictions.calls == 0
        await stub.PredictBuildDuration(request())


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\x05ab", b"\x12" * 1000, bytes(range(256))])
async def test_bytes_that_are_no_message(content):
    async with serving() as running, running.channel() as channel:
        call = channel.unary_unary(f"/{PREDICTION}/PredictBuildDuration")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(content)
        assert failure(caught.value).reason == "INVALID_FIELD"
        assert running.predictions.calls == 0
