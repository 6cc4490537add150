"""Settings of every Conductor gRPC process: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from conductor_rpc.logs import LogSettings
from conductor_rpc.tracing import SLOW_SECONDS

ASYMMETRIC_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class SettingsInvalid(ValueError):
    """The settings do not allow to start; the message says what to change."""


class RpcSettings(LogSettings):
    """Settings of a Conductor gRPC process, read once and frozen."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=50051, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    insecure: bool = False
    """Serve without TLS and believe every caller's tenant. For a developer's machine only."""
    tls_certificate_file: Path | None = None
    """PEM file of the server's certificate chain. Read again when it changes, so rotation needs no restart."""
    tls_key_file: Path | None = None
    """PEM file of the server's private key."""
    tls_client_ca_file: Path | None = None
    """PEM file of the authorities of client certificates; when set, clients must show one (mTLS)."""

    jwks: str | None = None
    """JSON Web Key Set that tokens are verified with: a file, or an https:// address."""
    audience: str = "conductor"
    """Audience (`aud`) that tokens must be made for."""
    issuer: str | None = None
    """Issuer (`iss`) that tokens must come from."""
    token_algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    """Signature algorithms taken, asymmetric ones only."""
    token_leeway_seconds: float = Field(default=5.0, ge=0, le=60)
    """Difference between clocks that a token's times allow for."""
    jwks_refresh_seconds: float = Field(default=300.0, gt=0)
    """How often keys from an address are fetched anew; a file is looked at every second."""
    jwks_maximum_age_seconds: float = Field(default=3600.0, gt=0)
    """How long keys are used while they can't be fetched anew; after that every token is refused."""

    max_in_flight_count: int = Field(default=256, ge=1)
    """Calls, and items of streams, under way at once; further ones are refused."""
    max_stream_count: int = Field(default=1024, ge=1)
    """Streams both ways open at once, busy or not; further ones are refused."""
    max_stream_item_count: int = Field(default=128, ge=1, le=1024)
    """Items of one stream under way at once, up to their results' being sent; beyond that it is not read."""
    default_deadline_seconds: float = Field(default=5.0, gt=0)
    """Deadline of a unary call whose caller sends none."""
    minimum_deadline_seconds: float = Field(default=0.002, ge=0)
    """A call with less time left than this is refused before any work is done for it."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Largest message taken, after decompression."""

    grace_seconds: float = Field(default=1.0, ge=0)
    """After a stop is asked for: how long to go on serving as NOT_SERVING, so that callers go elsewhere."""
    drain_seconds: float = Field(default=10.0, ge=0)
    """After the grace: how long calls under way may take to end."""

    admin_host: str = "127.0.0.1"
    """Address of the admin ports. They ask for no credentials: name another one only where strangers are kept out."""
    admin_http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of ``/livez``, ``/readyz`` and ``/metrics`` by HTTP; 0 takes a free one, None opens none. With several
    workers, worker n (from 0) listens on this port + n."""
    admin_grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of channelz, health and reflection by gRPC; otherwise the same."""

    trace_slow_seconds: float = Field(default=SLOW_SECONDS, ge=0)
    """A call that takes so long is logged, and traced whatever OTEL_TRACES_SAMPLER says, where traces are exported at
    all."""

    def require_security(self) -> None:
        """Refuse to go on without TLS and an authenticator, unless ``insecure`` was said.

        Raises:
            SettingsInvalid: something is missing or contradicts itself.
        """
        secured = [self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file, self.jwks]
        if self.insecure:
            if any(value is not None for value in secured):
                raise SettingsInvalid("--insecure contradicts TLS and JWKS settings: leave out one or the other")
            return
        flags = {
            "--tls-cert": self.tls_certificate_file,
            "--tls-key": self.tls_key_file,
            "--jwks": self.jwks,
            "--issuer": self.issuer,
        }
        missing = [flag for flag, value in flags.items() if value is None]
        if missing:
            raise SettingsInvalid(
                f"serving needs TLS and an authenticator: {', '.join(missing)} not set "
                "(or say --insecure on a machine that only you reach)"
            )
        unfit = set(self.token_algorithms) - ASYMMETRIC_ALGORITHMS
        if unfit or not self.token_algorithms:
            raise SettingsInvalid(f"token_algorithms may hold asymmetric algorithms only, not {sorted(unfit)}")
