"""Settings of every Conductor gRPC process: flag > environment (``CONDUCTOR_…``) > ``conductor.toml`` > default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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
    token_roles_claim: str | None = None
    """Claim of a token that holds its roles, a list or a text of words, beside those in `scope`."""
    token_default_roles: tuple[Literal["predict", "publish"], ...] = ("predict", "publish")
    """Roles of a token that says nothing of roles; empty to refuse it. Never `operate`: that must be said."""

    api_keys_file: Path | None = None
    """File of API keys (`conductor keys`). What is created or revoked there counts within a second."""
    certificate_identities_file: Path | None = None
    """TOML file that says whom a client's certificate stands for. Read again when it changes."""

    audit_file: Path | None = None
    """File that administrative calls are noted in, a JSON line each; None: standard error. Where that can't be written
    to, they are refused."""

    max_in_flight_count: int = Field(default=256, ge=1)
    """Calls, and items of streams, under way at once; further ones are refused. The most that the limit may be."""
    min_in_flight_count: int = Field(default=32, ge=1)
    """The least that the limit falls to."""
    concurrency_limit: Literal["adaptive", "fixed"] = "adaptive"
    """``adaptive``: fewer calls are let in while predictions take longer than they should. ``fixed``: always
    ``max_in_flight_count``."""
    target_latency_seconds: float = Field(default=0.05, gt=0)
    """What the quickest tenth of predictions may take before the adaptive limit falls."""
    batch_share: float = Field(default=0.5, gt=0, le=1)
    """Batch work is let in while less than this share of the limit is taken."""
    tenant_questions_per_second: float = Field(default=0.0, ge=0)
    """What a tenant may ask each process, a batch counting as its items; 0 for any number."""
    tenant_rates: dict[str, float] = Field(default_factory=dict)
    """The same of single tenants, by their ids, for example ``{"acme": 200}``."""
    tenant_burst_seconds: float = Field(default=1.0, gt=0)
    """So many seconds' worth of questions may come at once."""
    max_pending_count: int = Field(default=16, ge=1)
    """Calls of a method that have come and wait to be looked at, beside those that there is room for; gRPC itself
    refuses further ones, with CANCELLED."""
    max_connection_stream_count: int = Field(default=512, ge=1)
    """Calls of one connection under way at once, streams included; further ones wait at the caller (HTTP/2). More than
    ``max_pending_count``, or who floods by one connection has calls grow old there instead of being refused."""
    max_stream_count: int = Field(default=1024, ge=1)
    """Streams both ways, and watches of models, open at once, busy or not; further ones are refused. A tenant may hold
    half of those that others have left, as they may stay open for days."""
    max_stream_item_count: int = Field(default=128, ge=1, le=1024)
    """Items of one stream under way at once, up to their results' being sent; beyond that it is not read. It falls as
    the adaptive limit does, in proportion."""
    default_deadline_seconds: float = Field(default=5.0, gt=0)
    """Deadline of a unary call whose caller sends none."""
    minimum_deadline_seconds: float = Field(default=0.002, ge=0)
    """A call with less time left than this is refused before any work is done for it."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Largest message taken, after decompression."""

    max_connection_count: int = Field(default=4096, ge=1)
    """Connections of callers open at once, in each process; further ones are closed before their TLS handshake."""
    handshake_seconds: float = Field(default=5.0, gt=0, le=120)
    """How long a new connection may take over its TLS handshake and HTTP/2 settings before it is closed."""
    connection_idle_seconds: float = Field(default=300.0, ge=1)
    """A connection without a call for so long is closed; clients open it again with their next call."""
    keepalive_seconds: float = Field(default=60.0, ge=1)
    """A connection that is silent for so long is asked whether anybody is there, and closed if nobody is."""

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
        sources = [self.jwks, self.api_keys_file, self.certificate_identities_file]
        tls = [self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file]
        if self.insecure:
            if any(value is not None for value in (*tls, *sources)):
                raise SettingsInvalid(
                    "--insecure contradicts TLS, JWKS and other credentials: leave out one or the other"
                )
            return
        flags: dict[str, object] = {"--tls-cert": self.tls_certificate_file, "--tls-key": self.tls_key_file}
        if all(source is None for source in sources):
            flags["--jwks (or --api-keys, or --certificate-identities)"] = None
        if self.jwks is not None:
            flags["--issuer"] = self.issuer
        if self.certificate_identities_file is not None:
            flags["--tls-client-ca"] = self.tls_client_ca_file
        missing = [flag for flag, value in flags.items() if value is None]
        if missing:
            raise SettingsInvalid(
                f"serving needs TLS and an authenticator: {', '.join(missing)} not set "
                "(or say --insecure on a machine that only you reach)"
            )
        unfit = set(self.token_algorithms) - ASYMMETRIC_ALGORITHMS
        if unfit or not self.token_algorithms:
            raise SettingsInvalid(f"token_algorithms may hold asymmetric algorithms only, not {sorted(unfit)}")

    def describe_security(self) -> str:
        """In words, for who starts the process."""
        if self.insecure:
            return "insecure: no TLS, no credentials"
        taken = {
            f"tokens by {self.issuer}": self.jwks,
            "API keys": self.api_keys_file,
            "client certificates": self.certificate_identities_file,
        }
        return ", ".join(["TLS", *(kind for kind, source in taken.items() if source is not None)])
