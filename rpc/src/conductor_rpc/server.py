"""A gRPC process: start, serve, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conductor_client.audit_log import AuditLog
from conductor_rpc import health, names, tls
from conductor_rpc.admin.ports import AdminPorts
from conductor_rpc.audit import Audit
from conductor_rpc.authentication import authenticator
from conductor_rpc.calls_ahead import CallsAhead
from conductor_rpc.departures import log_nothing_unsent
from conductor_rpc.dropped_calls import DroppedCalls
from conductor_rpc.items import ItemStreams
from conductor_rpc.onion import Onion
from conductor_rpc.settings import RpcSettings, SettingsInvalid
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_rpc.work import Work

_LOG = logging.getLogger(__name__)
_MAX_METADATA_BYTES = 16 * 1024
_IDLE_LOOKS, _IDLE_LOOK_SECONDS = 3, 0.05  # an answer given is on its way long before that


@dataclass(frozen=True)
class Service:
    """A service to serve."""

    name: str
    """Full name, for example ``conductor.prediction.v1.PredictionService``."""
    register: Callable[[Any], None]
    """Adds the servicer to a server, as generated code does."""
    work: Mapping[str, Work] = field(default_factory=dict)
    """Methods by name, those whose calls differ from ``work.OTHER``."""


class RpcServer:
    """Serves services, with everything around them that a Conductor process owes its callers."""

    def __init__(
        self,
        settings: RpcSettings,
        services: Sequence[Service],
        *,
        telemetry: Telemetry = OFF,
        share_port: bool = False,
    ) -> None:
        """Raises:
        SettingsInvalid: neither security nor ``insecure`` is complete.
        """
        settings.require_security()
        self._settings, self._services, self._share_port = settings, tuple(services), share_port
        self._authenticator = authenticator(settings)
        self._stalls = telemetry.stalls
        telemetry.observe(names.TLS_CERTIFICATE_EXPIRY, tls.expiry_of(settings.tls_certificate_file), unit="s")
        if self._authenticator is not None:
            telemetry.observe(names.JWKS_AGE, self._authenticator.keys_age_seconds, unit="s")
        work = {f"/{service.name}/{method}": of for service in services for method, of in service.work.items()}
        audit = Audit(AuditLog(settings.audit_file), telemetry)
        self._work = work
        self._onion = Onion(settings, self._authenticator, telemetry, audit, work)
        self._dropped = DroppedCalls(lambda: self._onion.handed_count)
        telemetry.observe(names.DROPPED, self._dropped.count, total=True)
        self._health = health.Health(tuple(service.name for service in services))
        self.admin = AdminPorts(settings, self._health, lambda: self.is_serving, telemetry.registry)
        self._server: grpc.aio.Server | None = None
        self._stop_asked = asyncio.Event()
        self.port = 0

    @property
    def in_flight_count(self) -> int:
        """Calls and items under way, and open streams."""
        return self._onion.gate.calls.in_flight_count + self._onion.gate.streams.in_flight_count

    @property
    def item_streams(self) -> ItemStreams:
        """What answers streams of items."""
        return self._onion.item_streams

    @property
    def is_serving(self) -> bool:
        """Whether calls are welcome: from the end of ``start`` to the begin of ``stop``."""
        return self._server is not None

    async def start_admin(self) -> None:
        """Open the admin ports already, so that they tell of a process that does not serve yet; ``stop`` closes them.

        Raises:
            SettingsInvalid: a port is taken.
        """
        self._health.report(serving=self.is_serving)
        await self.admin.start()

    async def start(self) -> int:
        """Listen, and report SERVING.

        Returns:
            The port.

        Raises:
            SettingsInvalid: the TLS files can't be used, or a port is taken.
        """
        await self.start_admin()
        log_nothing_unsent()
        server = grpc.aio.server(interceptors=(self._onion,), options=self._options())
        self._dropped.watch_newest()
        ahead = CallsAhead(server, self._onion)
        for service in self._services:
            service.register(ahead)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        served = [service.name for service in self._services]
        reflection.enable_server_reflection((*served, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            self.port = self._bind(server)
        except SettingsInvalid:
            await self.admin.stop()
            raise
        await server.start()
        ahead.start(method for method, work in self._work.items() if work.frequent)
        self._stalls.start()
        self._server = server
        self._health.report(serving=True)
        return self.port

    async def serve(self) -> None:
        """Serve until ``ask_stop``, then stop."""
        await self._stop_asked.wait()
        await self.stop()

    async def stop(self) -> None:
        """Report NOT_SERVING, go on serving for the grace, let calls under way end, close; the admin ports last."""
        try:
            await self._stop_serving()
        finally:
            await self.admin.stop()

    async def _stop_serving(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        self._health.stop_serving()
        await asyncio.sleep(self._settings.grace_seconds)
        self._health.close()
        await self._drain(server)
        self._stalls.stop()
        if self._authenticator is not None:
            await self._authenticator.close()

    def ask_stop(self) -> None:
        """Make ``serve`` stop."""
        self._stop_asked.set()

    async def _drain(self, server: grpc.aio.Server) -> None:
        """Let calls under way end, and end what is left.

        A call that crosses with the stop is now and then taken in by gRPC but handed to nobody; its caller would wait
        for an answer until the end of the drain. So when nothing of ours is under way any more, the rest is cancelled.
        """
        stopping = asyncio.ensure_future(server.stop(self._settings.drain_seconds))
        await asyncio.sleep(0)  # clients learn that this connection takes nothing more, then that their stream ends
        self._onion.item_streams.stop()
        idle_count = 0
        while idle_count < _IDLE_LOOKS and not stopping.done():
            await asyncio.wait({stopping}, timeout=_IDLE_LOOK_SECONDS)
            idle_count = idle_count + 1 if self.in_flight_count == 0 else 0
        if not stopping.done():
            await server.stop(None)
        await stopping

    def _bind(self, server: grpc.aio.Server) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            if self._settings.insecure:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, tls.server_credentials(self._settings))
        except RuntimeError as error:
            raise SettingsInvalid(f"can't listen on {address}: is the port taken?") from error

    def _options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.max_receive_message_length", self._settings.max_message_bytes),
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.max_concurrent_streams", self._settings.max_connection_stream_count),
            # Refused without a line of Python being run (ADR 23): one that refused them itself would do nothing else.
            ("grpc.server.max_pending_requests", self._settings.max_pending_count),
            ("grpc.server.max_pending_requests_hard_limit", self._settings.max_pending_count),
            ("grpc.max_allowed_incoming_connections", self._settings.max_connection_count),
            ("grpc.server_handshake_timeout_ms", int(self._settings.handshake_seconds * 1000)),
            ("grpc.max_connection_idle_ms", int(self._settings.connection_idle_seconds * 1000)),
            ("grpc.keepalive_time_ms", int(self._settings.keepalive_seconds * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.so_reuseport", int(self._share_port)),
            ("grpc.enable_channelz", 1),
        ]


async def serve_until_signal(server: RpcServer) -> None:
    """Serve a started server until SIGTERM or SIGINT, then stop it."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.ask_stop)
    try:
        await server.serve()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine on uvloop, with all the descriptors that it may have: a connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(main)
