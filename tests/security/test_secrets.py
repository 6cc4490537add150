"""S12: secrets planted in every input; none is told on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

import ending
from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor_client.redaction import HIDDEN, redacted
from conductor_rpc.logs import LogSettings, configure_logging
from conductor_workbench.doctor import examine
from conductor_workbench.embedded.redis import free_port
from faults.scene import Scene, until
from security.attacked import ATTACK_SECONDS, channel
from security.raw_http2 import PREDICT
from security.requests import valid_requests
from security.test_boundaries import MINE

PLANTED = "Xq7-planted-S3cret"
_BEYOND_KNOWN = b"\xfa\x7f" + bytes([len(PLANTED)]) + PLANTED.encode()
"""A field that this release does not know, with an API key in it."""
ADDRESSES = {
    "CONDUCTOR_REDIS_URL": f"redis://someone:{PLANTED}@127.0.0.1:1/0",
    "CONDUCTOR_DATABASE_URL": f"postgresql://someone:{PLANTED}@127.0.0.1:1/conductor?sslpassword={PLANTED}",
    "CONDUCTOR_EVENT_STREAM_URL": f"redis://someone:{PLANTED}@127.0.0.1:1/0",
    "CONDUCTOR_TOKEN": PLANTED,
}
AWAY = {
    **ADDRESSES,
    "CONDUCTOR_MODEL_STORE": f"s3://key:{PLANTED}@bucket/prefix?secret={PLANTED}",
    "CONDUCTOR_LAKE": f"s3://key:{PLANTED}@bucket/lake",
    "AWS_ENDPOINT_URL": f"http://someone:{PLANTED}@127.0.0.1:1",
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": PLANTED,
    "AWS_REGION": "nowhere",
}


@dataclass
class Collector(grpc.GenericRpcHandler):
    """Takes in whatever OTLP sends."""

    received: list[bytes] = field(default_factory=list)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def take(content: bytes, context: object) -> bytes:
            self.received.append(content)
            return b""

        return grpc.unary_unary_rpc_method_handler(take)

    def saw(self, text: str) -> bool:
        return any(text.encode() in content for content in self.received)


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((collector,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None)


def found_in(places: Mapping[str, str], token: str) -> list[str]:
    """Where a secret stands."""
    secrets = (PLANTED, token, token.rpartition(".")[2], "PRIVATE KEY")
    return [place for place, text in places.items() if any(secret in text for secret in secrets)]


@asynccontextmanager
async def serving_with_secrets(scene: Scene, collector: str) -> AsyncIterator[tuple[str, int]]:
    """A server whose addresses hold secrets, with all that it can tell turned on; its address and its metrics' port."""
    port = free_port()
    environment = {
        **ADDRESSES,
        "CONDUCTOR_ADMIN_HTTP_PORT": str(port),
        "CONDUCTOR_LOG_LEVEL": "DEBUG",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    async with scene.serving("--grace", "0", **environment) as process:
        yield process.address, port  # type: ignore[attr-defined]


def ask_with_secrets(scene: Scene, target: str, token: str) -> str:
    """Calls of every method with secrets in all that a caller can say; returns all that it is told of errors."""
    told = []
    metadata = (
        ("authorization", f"Bearer {token}"),
        ("x-api-key", PLANTED),
        ("x-secret-bin", PLANTED.encode()),
        ("cookie", f"session={PLANTED}"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", f"vendor={PLANTED}"),
        ("baggage", f"key={PLANTED}"),
    )
    build = dict.fromkeys(("repository", "pipeline", "branch", "actor", "commit_sha"), PLANTED)
    odd = [
        PredictBuildDurationRequest(tenant_id=MINE, build=build).SerializeToString(),
        PredictBuildDurationRequest(tenant_id=PLANTED, build=build).SerializeToString(),
        PredictBuildDurationRequest(tenant_id=MINE, build={**build, "branch": PLANTED + "\0"}).SerializeToString(),
        PLANTED.encode(),
    ]
    calls_of = [(PREDICT, content) for content in odd] + [(f"/{PLANTED}/{PLANTED}", b"")]
    valid = {method: request.SerializeToString() for method, request in valid_requests(MINE)[0].items()}
    moves = ("PromoteModel", "RollbackModel", "WithdrawModel", "WatchModels", "Watch")
    calls_of += [item for item in valid.items() if item[0].rpartition("/")[2] not in moves]
    with channel(scene, target) as calls:
        for method, content in calls_of:
            for credentials in (metadata, (("authorization", f"Basic {PLANTED}"), *metadata[1:])):
                try:
                    calls.unary_unary(method)(content + _BEYOND_KNOWN, timeout=30, metadata=credentials)
                except grpc.RpcError as error:
                    told.append(f"{error.details()} {error.trailing_metadata()}")
    return "\n".join(told)


async def test_nothing_is_told_on(scene: Scene) -> None:
    token, log = scene.platform.keys.token(MINE), scene.directory / "logs" / "another-serve.log"
    begin = log.stat().st_size if log.exists() else 0
    with collecting() as (collector, endpoint):
        async with serving_with_secrets(scene, endpoint) as (target, port):
            errors = await asyncio.to_thread(ask_with_secrets, scene, target, token)
            await until(lambda: collector.saw("PredictBuildDuration") and collector.saw("rpc.server"), 60, "telemetry")
            metrics = (await asyncio.to_thread(requests.get, f"http://127.0.0.1:{port}/metrics", timeout=30)).text
        await until(lambda: collector.saw("conductor-server"), 60, "telemetry")
        places = {
            "errors": errors,
            "metrics": metrics,
            "telemetry": b"".join(collector.received).decode("latin-1"),
            "log": log.read_bytes()[begin:].decode(errors="replace"),
            "the other logs": scene.logs(),
        }
    assert errors
    assert "can't reach the online store" in places["log"], "the address that holds a password was used"
    assert not found_in(places, token)


COMMANDS = ["models list", "warehouse tail", "serve --insecure --port 0"]
if ATTACK_SECONDS:
    COMMANDS += ["doctor -o json", "lake list", "warehouse migrate"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_commands_hide_what_their_addresses_hold(command: str) -> None:
    """Nothing that is named is there: each ends with an error, or is ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conductor_client.command", *command.split()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **AWAY},
        start_new_session=True,
    )
    assert process.stdout is not None
    told = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                told += line
                if b"can't be read" in line or b"not carried" in line:  # it would go on for ever
                    break
    await ending.kill(process)
    assert told
    assert PLANTED not in told.decode(errors="replace")


_SECRET = st.text("abcXYZ019-_", min_size=8, max_size=30)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(secret=_SECRET.map("zq".__add__), around=st.sampled_from(["", "Error: ", "at (", "url='"]))
def test_what_is_hidden(secret: str, around: str) -> None:
    for text in (
        f"redis://someone:{secret}@host:1/0",
        f"postgresql://{secret}@host",
        f"s3://bucket/x?aws_secret_access_key={secret}&region=a",
        f"https://host/?X-Amz-Signature={secret}",
        f"host=h password={secret} dbname=d",
        f"Authorization: Bearer {secret}",
        f"authorization: basic {secret}",
        f"eyJhbGciOiJFUzI1NiJ9.{secret}.{secret}",
        f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----",
    ):
        hidden = redacted(around + text)
        assert secret not in hidden
        assert HIDDEN in hidden
        assert redacted(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    ["redis://127.0.0.1:6379/0", "mail a@b.example", "the token keys can't be read: URLError",
     "a valid bearer token is required", "s3://bucket/prefix", "12:00:01,123 INFO x: admin HTTP on 127.0.0.1:80"],
)  # fmt: skip
def test_what_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_log_lines_and_tracebacks_hide_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        configure_logging(LogSettings())
        try:
            raise ConnectionError(f"can't reach redis://u:{PLANTED}@host")
        except ConnectionError:
            logging.getLogger("test").exception("to %s", f"postgresql://u:{PLANTED}@host/x")
    finally:
        root.handlers = handlers
    told = capsys.readouterr().err
    assert told.count(HIDDEN) >= 2
    assert PLANTED not in told


def test_the_doctor_hides_what_the_model_store_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    assert PLANTED not in str(examine(tmp_path_factory.mktemp("doctor")))


def test_the_check_finds_what_is_planted(scene: Scene) -> None:
    """The planted bugs: metadata in a log, a name in a metric's label, a header in a span, a value in an error."""
    token = scene.platform.keys.token(MINE)
    clean = {"log": "INFO x", "metrics": "a 1", "telemetry": "span", "errors": "no"}
    assert not found_in(clean, token)
    planted = {
        "log": f"INFO metadata: authorization=Bearer {token}",
        "metrics": f'calls{{repository="{PLANTED}"}} 1',
        "telemetry": f"tracestate vendor={PLANTED}",
        "errors": f"no such branch: {PLANTED}",
    }
    for place, text in planted.items():
        assert found_in({**clean, place: text}, token) == [place]
