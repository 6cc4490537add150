"""A real server with services whose behaviour a test chooses, real certificates and real tokens."""

# ruff: noqa: N802 - the contract's method names

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.rpc import error_details_pb2, status_pb2

from conductor.errors.v1.error_reason_pb2 import ErrorReason
from conductor.events.v1 import event_service_pb2, event_service_pb2_grpc
from conductor.prediction.v1 import build_duration_pb2, prediction_service_pb2_grpc
from conductor_client._aio_status import ServerStatus
from conductor_rpc.server import RpcServer, Service
from conductor_rpc.settings import RpcSettings
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_rpc.work import Criticality, Work

PREDICTION = "conductor.prediction.v1.PredictionService"
EVENTS = "conductor.events.v1.EventService"
AUDIENCE, ISSUER = "conductor", "https://id.example"
WORK = {
    "PredictBuildDuration": Work(alike=True, frequent=True),
    "BatchPredictBuildDurations": Work(Criticality.BATCH, lambda batch: len(batch.requests)),
}
Behaviour = Callable[[Any], Awaitable[None]]


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Does what the test says, then answers."""

    def __init__(self) -> None:
        self.behaviour: Behaviour | None = None
        self.calls = 0
        self.response = build_duration_pb2.PredictBuildDurationResponse()
        self.server: RpcServer | None = None

    async def PredictBuildDuration(self, request, context):
        return await self.predict(request)

    async def StreamBuildDurationPredictions(self, requests, context):
        await self.server.item_streams.answer(
            requests,
            context.write,
            build_duration_pb2.StreamBuildDurationPredictionsResponse,
            f"/{PREDICTION}/PredictBuildDuration",
            self.predict,
        )

    async def predict(self, request):
        self.calls += 1
        if self.behaviour is not None:
            await self.behaviour(request)
        return self.response

    async def BatchPredictBuildDurations(self, request, context):
        self.calls += 1
        return build_duration_pb2.BatchPredictBuildDurationsResponse()


class Events(event_service_pb2_grpc.EventServiceServicer):
    """Counts what it receives."""

    def __init__(self) -> None:
        self.batches = 0

    async def PublishEvents(self, request_iterator, context):
        received = 0
        async for batch in request_iterator:
            self.batches += 1
            received += len(batch.events)
        return event_service_pb2.PublishEventsResponse(received_count=received)


@dataclass
class Running:
    """A server that serves."""

    server: RpcServer
    predictions: Predictions
    events: Events

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @asynccontextmanager
    async def stub(self, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
        async with self.channel(credentials) as channel:
            yield prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if credentials is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        return grpc.aio.secure_channel(self.target, credentials, options=options)


@asynccontextmanager
async def serving(telemetry: Telemetry = OFF, *, share_port: bool = False, **settings: Any) -> AsyncIterator[Running]:
    settings = {"port": 0, "grace_seconds": 0, "drain_seconds": 5, "default_deadline_seconds": 30, **settings}
    if not {"insecure", "jwks"} & settings.keys():
        settings["insecure"] = True
    predictions, events = Predictions(), Events()
    server = RpcServer(
        RpcSettings(**settings),
        [
            Service(
                PREDICTION,
                lambda s: prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, s),
                work=WORK,
            ),
            Service(EVENTS, lambda s: event_service_pb2_grpc.add_EventServiceServicer_to_server(events, s)),
        ],
        telemetry=telemetry,
        share_port=share_port,
    )
    predictions.server = server
    await server.start()
    try:
        yield Running(server, predictions, events)
    finally:
        await server.stop()


def wait_for_calls(server: RpcServer, count: int) -> None:
    """Stand still, the server's event loop with us, until so many calls have come in all."""
    deadline = time.monotonic() + 30
    while server._dropped._started_count() < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def request(tenant_id: str = "acme", **fields: Any) -> build_duration_pb2.PredictBuildDurationRequest:
    build = {"repository": "shop/web", "pipeline": "ci", **fields}
    return build_duration_pb2.PredictBuildDurationRequest(tenant_id=tenant_id, build=build)


def item(item_id: int, tenant_id: str = "acme", *, timeout: float | None = None, **fields: Any) -> Any:
    """An item of a stream."""
    made = build_duration_pb2.StreamBuildDurationPredictionsItem(id=item_id, request=request(tenant_id, **fields))
    if timeout is not None:
        made.timeout.FromNanoseconds(int(timeout * 1e9))
    return made


def items(*asked: Any) -> Any:
    """A message of a stream."""
    return build_duration_pb2.StreamBuildDurationPredictionsRequest(items=asked)


@dataclass(frozen=True)
class Failure:
    """What a caller learns of an error."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    fields: dict[str, str]
    retry_seconds: float | None


def failure(error: grpc.aio.AioRpcError) -> Failure:
    """The error as the contract describes it; fails the test if any part of it is absent."""
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return from_status(status_pb2.Status.FromString(details), error)


async def ended(call: Any) -> Any:
    """What a streamed call ends with: a write that crosses a refusal would hide it (grpc/grpc#36066)."""
    status = ServerStatus(call)
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise await status.of(error) from None


def from_status(status: status_pb2.Status, error: grpc.aio.AioRpcError | None = None) -> Failure:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retried = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        retried |= detail.Unpack(retry)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    assert info.domain == "conductor"
    assert f"ERROR_REASON_{info.reason}" in ErrorReason.keys()  # noqa: SIM118 - an enum wrapper, no dict
    if error is not None:
        assert (error.code(), error.details()) == (code, status.message)
    fields = {violation.field: violation.description for violation in bad.field_violations}
    seconds = retry.retry_delay.ToNanoseconds() / 1e9 if retried else None
    return Failure(code, info.reason, status.message, dict(info.metadata), fields, seconds)


class Keys:
    """A signing key and its key set."""

    def __init__(self, key_id: str = "key-1") -> None:
        self.key_id = key_id
        self.private = rsa.generate_private_key(65537, 2048)

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def jwks(self) -> str:
        key = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return json.dumps({"keys": [{**key, "kid": self.key_id, "alg": "RS256", "use": "sig"}]})

    def token(self, tenant_id: str | None = "acme", *, key: Any = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {"tenant_id": tenant_id, "aud": AUDIENCE, "iss": ISSUER, "sub": "ci", "iat": now, "exp": now + 60}
        algorithm, kid = changes.pop("alg", "RS256"), changes.pop("kid", self.key_id)
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(claims, key if key is not None else self.private, algorithm, headers={"kid": kid})


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token that no honest library would make."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


_LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key.public_key(), authority=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, expired: bool = False, names: Sequence[x509.GeneralName] = _LOCAL) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), expired=expired, names=names)
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def credentials(self, client: Pair | None = None) -> grpc.ChannelCredentials:
        key = client.key.read_bytes() if client else None
        chain = client.certificate.read_bytes() if client else None
        return grpc.ssl_channel_credentials(self.file.read_bytes(), key, chain)

    def _sign(
        self,
        subject: x509.Name,
        key: Any,
        *,
        authority: bool = False,
        expired: bool = False,
        names: Sequence[x509.GeneralName] = _LOCAL,
    ) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=-1 if expired else 1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
