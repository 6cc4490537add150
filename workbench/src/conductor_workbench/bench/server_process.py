"""``conductor serve`` as a child process: how long until it serves, what it costs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import psutil
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from conductor_workbench.bench.figures import Figures
from conductor_workbench.embedded import child
from conductor_workbench.embedded.redis import free_port
from conductor_workbench.keys import AUDIENCE, ISSUER, EmbeddedKeys

MAIN = "from conductor_client.command import main; main()"
"""Python source that is ``conductor``."""
_STOP_SECONDS = 20.0


def memory(process_id: int) -> Figures:
    """Memory of a process now: resident, and what would be free if it ended."""
    found = psutil.Process(process_id).memory_full_info()
    return {"rss_mb": round(found.rss / 1e6, 1), "uss_mb": round(found.uss / 1e6, 1)}


class ServerProcess:
    """A prediction server. Use as ``with ServerProcess(…) as server``; stops at once, if no grace is given."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        *,
        keys: EmbeddedKeys | None,
        workers: int = 1,
        grace_seconds: float = 0.0,
        main: str = MAIN,
    ) -> None:
        """``keys``: with TLS and tokens; None for insecure. ``environment``: names Redis and the model store."""
        self._grace_seconds, self._main = grace_seconds, main
        self._environment, self._log, self._keys, self._workers = environment, log, keys, workers
        self.target = f"127.0.0.1:{free_port()}"
        self.start_up_seconds = 0.0
        """From spawning to the health service's SERVING."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; raises RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def _security(self) -> list[str]:
        if self._keys is None:
            return ["--insecure"]
        return [
            *("--tls-cert", str(self._keys.server_certificate), "--tls-key", str(self._keys.server_key)),
            *("--jwks", str(self._keys.jwks), "--audience", AUDIENCE, "--issuer", ISSUER),
        ]

    def _channel(self) -> grpc.Channel:
        # A server that is not there yet is asked again soon: the measurement must not wait for gRPC's backoff.
        options = [(f"grpc.{which}_reconnect_backoff_ms", 20) for which in ("initial", "min", "max")]
        if self._keys is None:
            return grpc.insecure_channel(self.target, options=options)
        credentials = grpc.ssl_channel_credentials(self._keys.ca_certificate.read_bytes())
        return grpc.secure_channel(self.target, credentials, options=options)

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        port = self.target.rpartition(":")[2]
        options = ["--port", port, "--grace", str(self._grace_seconds), "--workers", str(self._workers)]
        command = [sys.executable, "-c", self._main, "serve", *options, *self._security()]
        began = time.perf_counter()
        self._process = child.spawn(command, self._log, environment=self._environment)
        try:
            with self._channel() as channel:
                check = HealthStub(channel).Check  # type: ignore[attr-defined]  # its stubs lack the methods

                def serves() -> bool:
                    try:
                        answer = check(HealthCheckRequest(), timeout=1.0)
                    except grpc.RpcError:
                        return False
                    return bool(answer.status == HealthCheckResponse.SERVING)

                child.wait_until(serves, self._process, self._log, 60.0)
        except BaseException:
            self._stop()
            raise
        self.start_up_seconds = time.perf_counter() - began
        return self

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            child.stop(process, signal.SIGTERM, _STOP_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
