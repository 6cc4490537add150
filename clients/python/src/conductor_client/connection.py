"""How a client connects and when it tries again: what both clients share, without a call in it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import grpc

from conductor_client.errors import ConductorError, Overloaded, error_from_rpc

TokenSource = str | Callable[[], str]
Certificate = bytes | str | Path
Criticality = Literal["interactive", "batch"]

_RETRYABLE = {
    # A call that crosses with a server's stop may end as CANCELLED; asking again costs nothing.
    "conductor.prediction.v1.PredictionService": ("UNAVAILABLE", "CANCELLED"),
    "conductor.testing.v1.TestIntelligenceService": ("UNAVAILABLE", "CANCELLED"),
    "conductor.events.v1.EventService": ("UNAVAILABLE",),
}
"""Status codes on which gRPC asks again. An overloaded server isn't asked again unless it says when: see `Attempts`."""
_CRITICALITY = "conductor-criticality"
_STREAM = {"service": "conductor.prediction.v1.PredictionService", "method": "StreamBuildDurationPredictions"}


@dataclass(frozen=True)
class ConnectionSettings:
    """Everything about a connection. Frozen; give another one to change it."""

    target: str
    """``host:port``, or any gRPC name such as ``dns:///conductor.internal:443``; every address that it resolves to
    takes its turn."""
    token: TokenSource | None = None
    """Bearer token, or a function that gives the current one; it is called for every call and must not block."""
    root_certificates: Certificate | None = None
    """PEM text, or the path of a PEM file, of the authorities to trust; absent means the system's."""
    client_certificate: Certificate | None = None
    """PEM certificate chain for mTLS, with ``client_key``."""
    client_key: Certificate | None = None
    """PEM private key for mTLS."""
    insecure: bool = False
    """No TLS: for a server on the same machine. A token would travel in the clear."""
    timeout_seconds: float = 1.0
    """Deadline of a prediction call, its retries included."""
    tests_timeout_seconds: float = 10.0
    """Deadline of a call about tests, its retries included: there may be thousands, and a diff that takes its time."""
    publish_timeout_seconds: float = 300.0
    """Deadline of a whole stream of events."""
    maximum_attempts: int = 5
    """Attempts of a call that finds the server UNAVAILABLE; 1 for no retry. gRPC allows at most 5."""
    initial_backoff_seconds: float = 0.02
    """Wait before the second attempt, randomised; doubles up to ``maximum_backoff_seconds``."""
    maximum_backoff_seconds: float = 0.2
    maximum_message_bytes: int = 4 << 20
    """Largest message sent: no server takes a larger one."""
    maximum_answer_bytes: int = 64 << 20
    """Largest message received: an answer about all tests of a repository is as long as these are many."""
    criticality: Criticality | None = None
    """``batch`` for work that can be asked for again later: a server with too much to do refuses it first. Absent:
    batches are batch work, all else is interactive."""

    def open_sync(self) -> grpc.Channel:
        """Open a channel for `SyncConductorClient`."""
        if self.insecure:
            return grpc.insecure_channel(self.target, options=self._options())
        return grpc.secure_channel(self.target, self._credentials(), options=self._options())

    def open_async(self) -> grpc.aio.Channel:
        """Open a channel for `ConductorClient`."""
        if self.insecure:
            return grpc.aio.insecure_channel(self.target, options=self._options())
        return grpc.aio.secure_channel(self.target, self._credentials(), options=self._options())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of a call."""
        token = self.token() if callable(self.token) else self.token
        headers = (("authorization", f"Bearer {token}"),) if token else ()
        return (*headers, (_CRITICALITY, self.criticality)) if self.criticality else headers

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.root_certificates),
            private_key=_pem(self.client_key),
            certificate_chain=_pem(self.client_certificate),
        )

    def _options(self) -> list[tuple[str, str | int]]:
        policy = {
            "maxAttempts": self.maximum_attempts,
            "initialBackoff": f"{self.initial_backoff_seconds:.3f}s",
            "maxBackoff": f"{self.maximum_backoff_seconds:.3f}s",
            "backoffMultiplier": 2,
        }
        methods: list[dict[str, object]] = [
            {"name": [{"service": service}], "retryPolicy": policy | {"retryableStatusCodes": codes}}
            for service, codes in _RETRYABLE.items()
        ]
        methods.append({"name": [_STREAM]})  # without a policy: asked again item by item
        service_config = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": methods if self.maximum_attempts > 1 else [],
            # Stop retrying while most calls fail: a server that comes back must not meet four times the load.
            "retryThrottling": {"maxTokens": 500, "tokenRatio": 0.5},
        }
        return [
            ("grpc.service_config", json.dumps(service_config)),
            ("grpc.max_send_message_length", self.maximum_message_bytes),
            ("grpc.max_receive_message_length", self.maximum_answer_bytes),
            # A dead peer shows within 70 s. Pings only while a call is under way, which any server allows.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 0),
            # What connecting may take, TLS included: a busy server or a far one needs its time for the handshake.
            ("grpc.min_reconnect_backoff_ms", 1_000),
            # Within the attempts of one call: a process that stops may break off a connection that is just being made.
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.primary_user_agent", f"conductor-client/{version('conductor-client')}"),
        ]


class Attempts:
    """One budget of time for a call, and whether to try again.

    gRPC itself retries UNAVAILABLE within the budget. An overloaded server is asked once more if it said after what
    wait, and if the budget allows the wait.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._end = time.monotonic() + timeout_seconds
        self._waited = False

    def timeout(self) -> float | None:
        """Seconds left, at least 0; None without end."""
        left = max(self._end - time.monotonic(), 0.0)
        return None if left == float("inf") else left

    def wait_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before trying again. Raises the typed error when trying again is no use."""
        error = error_from_rpc(failure)
        wait = self.wait_told(error)
        if wait is None:
            raise error from failure
        return wait

    def wait_told(self, error: ConductorError) -> float | None:
        """Seconds to wait before trying again, as the server told; None when trying again is no use."""
        if self._waited or not isinstance(error, Overloaded) or error.retry_delay is None:
            return None
        wait = error.retry_delay.total_seconds()
        if time.monotonic() + wait >= self._end:
            return None
        self._waited = True
        return wait


def _pem(certificate: Certificate | None) -> bytes | None:
    if certificate is None or isinstance(certificate, bytes):
        return certificate
    text = str(certificate)
    return text.encode() if text.lstrip().startswith("-----BEGIN") else Path(certificate).expanduser().read_bytes()
