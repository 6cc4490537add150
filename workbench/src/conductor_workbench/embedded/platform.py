"""The whole of Conductor on one machine: database, Redis, ingestion, tailing writer and prediction server.

A part that ends by itself is started again, on the same address.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from conductor_model_store import ModelStore
from conductor_model_store.settings import ModelStoreSettings
from conductor_model_store.signing import sign_all, sign_channels
from conductor_model_store.verification import Finding
from conductor_workbench.embedded import child
from conductor_workbench.embedded.postgres import EmbeddedPostgres
from conductor_workbench.embedded.redis import EmbeddedRedis, free_port
from conductor_workbench.embedded.startable import Startable
from conductor_workbench.embedded.supervisor import Part, Supervisor
from conductor_workbench.keys import AUDIENCE, ISSUER, EmbeddedKeys

DATABASE = "conductor"
_OF_A_NAMED_STORE = {
    "model_store",
    "model_signing_key",
    "model_trusted_keys",
    "model_operator_key",
    "model_trusted_operator_keys",
}
_MAIN = "from conductor_client.command import main; main()"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PlatformSettings:
    """Where and how the platform runs. A URL given is used instead of an embedded service."""

    directory: Path = Path(".conductor")
    """Data, logs, keys and models."""
    database_url: str | None = None
    redis_url: str | None = None
    model_store: str | None = None
    model_signing_key: Path | None = None
    """Signs models; None makes a key."""
    model_trusted_keys: tuple[Path, ...] = ()
    """Keys that the server trusts; none: the one that was made."""
    model_operator_key: Path | None = None
    """Signs moves of channels, the server's too; None: the key that signs models does."""
    model_trusted_operator_keys: tuple[Path, ...] = ()
    """Keys that the server trusts to move channels; none: those of models."""
    prediction_port: int = 0
    """Port of the prediction server; 0 takes a free one."""
    events_port: int = 0
    """Port of the event service; 0 takes a free one."""
    workers: int = 1
    """Worker processes of the prediction server."""
    admin_http_port: int | None = None
    """Port of the prediction server's probes and metrics; 0 takes a free one, None opens none."""
    admin_grpc_port: int | None = None
    """Port of the prediction server's channelz; likewise."""
    insecure: bool = False
    """Without TLS and tokens."""
    keep: bool = True
    """Keep the embedded database; without it, it begins empty and is removed at the end."""
    redis_tcp: bool = False
    """Embedded Redis on a TCP port instead of a private socket."""

    @classmethod
    def from_environment(cls, **overrides: object) -> Self:
        """Settings with the services that ``CONDUCTOR_…_URL`` name, and the keys of a model store that is named."""
        found: dict[str, object] = {
            "database_url": os.environ.get("CONDUCTOR_DATABASE_URL"),
            "redis_url": os.environ.get("CONDUCTOR_REDIS_URL"),
        }
        if os.environ.get("CONDUCTOR_MODEL_STORE"):
            models = ModelStoreSettings()
            found |= models.model_dump(include=_OF_A_NAMED_STORE)
        return cls(**(found | overrides))  # type: ignore[arg-type]


class Platform(Startable):
    """Starts everything in order, and stops it in reverse.

    ::

        with Platform(PlatformSettings(directory=Path(".conductor"))) as platform:
            client = platform.connect("acme")
    """

    def __init__(
        self,
        settings: PlatformSettings,
        progress: Progress = lambda message: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``environment``: more of it for the processes, for example where to send telemetry."""
        self.settings = settings
        self._more_environment = environment or {}
        self.directory = settings.directory.absolute()
        self.keys = EmbeddedKeys(self.directory / "keys")
        self.model_store = settings.model_store or str(self.directory / "models")
        self.model_signing_key = settings.model_signing_key or self.keys.model_signing_key
        self.model_trusted_keys = settings.model_trusted_keys or (self.keys.model_trusted_key,)
        self.model_operator_key = settings.model_operator_key or self.model_signing_key
        self.prediction_target = f"127.0.0.1:{settings.prediction_port or free_port()}"
        self.events_target = f"127.0.0.1:{settings.events_port or free_port()}"
        self.admin_http_port = _port(settings.admin_http_port)
        self.admin_grpc_port = _port(settings.admin_grpc_port)
        self.redis: EmbeddedRedis | None = None
        self.postgres: EmbeddedPostgres | None = None
        self.redis_url = settings.redis_url or ""
        self.database_url = settings.database_url or ""
        self.startup_seconds: dict[str, float] = {}
        """Time to SERVING, by process."""
        self._progress = progress
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._supervisor: Supervisor | None = None
        self._stack = ExitStack()

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment of commands that are to use this platform."""
        return (
            os.environ
            | dict(self._more_environment)
            | {
                "CONDUCTOR_DATABASE_URL": self.database_url,
                "CONDUCTOR_REDIS_URL": self.redis_url,
                "CONDUCTOR_MODEL_STORE": self.model_store,
                "CONDUCTOR_MODEL_SIGNING_KEY": str(self.model_signing_key),
                "CONDUCTOR_MODEL_TRUSTED_KEYS": os.pathsep.join(map(str, self.model_trusted_keys)),
                "CONDUCTOR_MODEL_OPERATOR_KEY": str(self.model_operator_key),
                "CONDUCTOR_MODEL_TRUSTED_OPERATOR_KEYS": os.pathsep.join(
                    map(str, self.settings.model_trusted_operator_keys)
                ),
                "CONDUCTOR_MODEL_POINTER_MEMORY": str(self.directory / "model-moves.sqlite"),
            }
        )

    def open_models(self) -> ModelStore:
        """Open its model store, to publish signed models. Raises InvalidKey, ModelStoreUnavailable."""
        settings = ModelStoreSettings(
            model_store=self.model_store,
            model_signing_key=self.model_signing_key,
            model_trusted_keys=self.model_trusted_keys,
            model_operator_key=self.model_operator_key,
            model_trusted_operator_keys=self.settings.model_trusted_operator_keys,
        )
        return settings.open()

    def start(self) -> Self:
        """Start everything; on an error what was started is stopped again. Raises ChildFailed with the log's end."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._make_keys()
        if not self.database_url:
            self._progress("Starting PostgreSQL")
            embedded_postgres = EmbeddedPostgres(self.directory / "postgres", keep=self.settings.keep)
            self.postgres = self._stack.enter_context(embedded_postgres)
            self.database_url = self.postgres.create_database(DATABASE)
        if not self.redis_url:
            self._progress("Starting Redis")
            embedded_redis = EmbeddedRedis(self.directory / "redis", tcp=self.settings.redis_tcp)
            self.redis = self._stack.enter_context(embedded_redis)
            self.redis_url = self.redis.url
        self._progress("Migrating the warehouse")
        self.run("warehouse", "migrate")
        self._progress("Starting ingestion, tailing writer and prediction server")
        host, _, events_port = self.events_target.rpartition(":")
        _, _, prediction_port = self.prediction_target.rpartition(":")
        security = self._security()
        began = time.monotonic()
        self._spawn("warehouse-tail", "warehouse", "tail")
        self._spawn("warehouse-serve", "warehouse", "serve", "--host", host, "--port", events_port, *security)
        options = ["--workers", str(self.settings.workers), *self._admin(), *security]
        self._spawn("serve", "serve", "--host", host, "--port", prediction_port, *options)
        for name, target in (("serve", self.prediction_target), ("warehouse-serve", self.events_target)):
            self._await_serving(name, target)
            self.startup_seconds[name] = time.monotonic() - began
        self._supervisor = Supervisor(dict(self._parts()))
        self._supervisor.start()

    def _make_keys(self) -> None:
        if not self.settings.insecure:
            self.keys.ensure()
        made = self.keys.ensure_model_keys()
        if self.settings.model_store:
            return
        # What is there from before there were signatures: once, as what comes later without them is not ours.
        if made:
            self._tell(sign_all(self.open_models()))
        if not self.keys.channels_signed.exists():
            self._tell(sign_channels(self.open_models()))
            self.keys.channels_signed.touch(mode=0o600)

    def _tell(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._progress(f"{'Not signed' if finding.problem else 'Signed'}: {finding.subject}")

    def _parts(self) -> Iterator[tuple[str, Part]]:
        for service_name, service in (("PostgreSQL", self.postgres), ("Redis", self.redis)):
            if service is not None:
                yield service_name, Part(service.running, service.start)
        for name, process in self._processes.items():
            command = list(map(str, cast(Sequence[str], process.args)))
            yield (
                name,
                Part(
                    running=lambda name=name: self._processes[name].poll() is None,  # type: ignore[misc]
                    start=lambda name=name, command=command: self._run_process(name, command),  # type: ignore[misc]
                ),
            )

    def run(self, *arguments: str) -> None:
        """Run a ``conductor`` command against this platform. Raises ChildFailed with its output."""
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            command = " ".join(arguments)
            raise child.ChildFailed(f"conductor {command} ended with {done.returncode}\n{done.stdout}{done.stderr}")

    def pid(self, name: str) -> int:
        """Process id of "serve", "warehouse-serve" or "warehouse-tail"."""
        return self._processes[name].pid

    def check(self) -> None:
        """Raise ChildFailed if a part ends again and again."""
        if self._supervisor is not None and self._supervisor.given_up:
            reasons = "; ".join(self._supervisor.given_up.values())
            raise child.ChildFailed(f"{reasons}; see {self.directory / 'logs'}")

    def stop(self) -> None:
        """Stop everything in reverse order; the servers drain."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        for process in reversed(self._processes.values()):
            child.stop(process, signal.SIGTERM, timeout_seconds=20.0)
        self._processes.clear()
        self._stack.close()

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """What a client trusts; None when insecure."""
        if self.settings.insecure:
            return None
        return grpc.ssl_channel_credentials(self.keys.ca_certificate.read_bytes())

    def _security(self) -> list[str]:
        if self.settings.insecure:
            return ["--insecure"]
        return [
            *("--tls-cert", str(self.keys.server_certificate), "--tls-key", str(self.keys.server_key)),
            *("--jwks", str(self.keys.jwks), "--audience", AUDIENCE, "--issuer", ISSUER),
        ]

    def _admin(self) -> list[str]:
        ports = {"--admin-http-port": self.admin_http_port, "--admin-grpc-port": self.admin_grpc_port}
        return [word for flag, port in ports.items() if port is not None for word in (flag, str(port))]

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def _spawn(self, name: str, *arguments: str) -> None:
        self._run_process(name, [sys.executable, "-c", _MAIN, *arguments])

    def _run_process(self, name: str, command: Sequence[str]) -> None:
        log = self._log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._processes[name] = child.spawn(command, log, environment=self.environment)

    def _await_serving(self, name: str, target: str) -> None:
        child.wait_until(lambda: self._serving(target), self._processes[name], self._log(name), 30.0)

    def _serving(self, target: str) -> bool:
        host, _, port = target.rpartition(":")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex((host, int(port))) != 0:
                return False
        credentials = self.channel_credentials()
        channel = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
        with channel:
            try:
                check = HealthStub(channel).Check  # type: ignore[attr-defined]  # its stubs lack the methods
                answer = check(HealthCheckRequest(), timeout=2.0)
            except grpc.RpcError:
                return False
        return bool(answer.status == HealthCheckResponse.SERVING)


def _port(asked: int | None) -> int | None:
    return free_port() if asked == 0 else asked
