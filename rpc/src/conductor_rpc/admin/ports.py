"""The admin ports of a process, as its settings ask for them."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from conductor_rpc.health import Health
from conductor_rpc.settings import RpcSettings, SettingsInvalid

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from conductor_rpc.admin.grpc_port import AdminGrpc
    from conductor_rpc.admin.http_port import AdminHttp

_LOG = logging.getLogger(__name__)


class AdminPorts:
    """Starts before the process serves, so that it can be asked whether it does, and stops after it."""

    def __init__(
        self, settings: RpcSettings, health: Health, is_ready: Callable[[], bool], registry: CollectorRegistry | None
    ) -> None:
        self._settings, self._health, self._is_ready, self._registry = settings, health, is_ready, registry
        self._http: AdminHttp | None = None
        self._grpc: AdminGrpc | None = None

    @property
    def http_port(self) -> int:
        """The HTTP port; 0 where there is none."""
        return self._http.port if self._http else 0

    @property
    def grpc_port(self) -> int:
        """The gRPC port; 0 where there is none."""
        return self._grpc.port if self._grpc else 0

    async def start(self) -> None:
        """Listen, on what is configured and not listened on yet.

        Raises:
            SettingsInvalid: a port is taken.
        """
        try:
            await self._start()
        except SettingsInvalid:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening, in reverse order, without waiting for anybody."""
        admin_grpc, self._grpc = self._grpc, None
        if admin_grpc is not None:
            await admin_grpc.stop()
        admin_http, self._http = self._http, None
        if admin_http is not None:
            await admin_http.stop()

    async def _start(self) -> None:
        # Imported only here: a process without these ports keeps the time and memory.
        settings = self._settings
        if settings.admin_http_port is not None and self._http is None:
            from conductor_rpc.admin.http_port import AdminHttp  # noqa: PLC0415

            self._http = AdminHttp(settings.admin_host, settings.admin_http_port, self._is_ready, self._registry)
            await self._http.start()
            self._tell("HTTP", self.http_port)
        if settings.admin_grpc_port is not None and self._grpc is None:
            from conductor_rpc.admin.grpc_port import AdminGrpc  # noqa: PLC0415

            self._grpc = AdminGrpc(settings.admin_host, settings.admin_grpc_port, self._health)
            await self._grpc.start()
            self._tell("gRPC", self.grpc_port)

    def _tell(self, kind: str, port: int) -> None:
        host = self._settings.admin_host
        _LOG.info("admin %s on %s:%d", kind, host, port)
        if not _is_loopback(host):
            _LOG.warning("admin %s needs no credentials and is not on the loopback interface: keep strangers out", kind)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
