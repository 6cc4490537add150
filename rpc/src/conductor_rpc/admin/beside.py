"""The HTTP admin port and telemetry of a process that has no event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from conductor_rpc.exporters import telemetry_from_environment
from conductor_rpc.telemetry import Telemetry

if TYPE_CHECKING:
    from conductor_rpc.admin.http_port import AdminHttp

_LOG = logging.getLogger(__name__)


@contextmanager
def telemetry_beside(
    service_name: str, host: str, port: int | None, is_ready: Callable[[], bool]
) -> Iterator[Telemetry]:
    """Telemetry as the OTEL_* environment asks for it, and a thread that answers on the admin port if there is one.

    Raises:
        SettingsInvalid: the port is taken.
    """
    telemetry, close = telemetry_from_environment(service_name, prometheus=port is not None)
    try:
        if port is None:
            yield telemetry
            return
        from conductor_rpc.admin.http_port import AdminHttp  # noqa: PLC0415 - only where it is needed

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="admin-http", daemon=True)
        thread.start()
        admin = AdminHttp(host, port, is_ready, telemetry.registry)
        try:
            asyncio.run_coroutine_threadsafe(admin.start(), loop).result()
            _LOG.info("admin HTTP on %s:%d", host, admin.port)
            yield telemetry
        finally:
            _stop(admin, loop, thread)
    finally:
        close()


def _stop(admin: AdminHttp, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    asyncio.run_coroutine_threadsafe(admin.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
