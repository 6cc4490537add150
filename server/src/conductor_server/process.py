"""One serving process from start to end: telemetry, application, signals."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from conductor_rpc.exporters import telemetry_from_environment
from conductor_rpc.server import RpcServer, serve_until_signal
from conductor_server.app import application
from conductor_server.settings import ServerSettings


async def serve_process(
    settings: ServerSettings,
    on_ready: Callable[[RpcServer], None],
    *,
    share_port: bool = False,
    known_models_directory: Path | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or ``ask_stop``; ``on_ready`` is called when it serves.

    Raises:
        SettingsInvalid: the settings do not allow to serve.
        ModelStoreUnavailable: there is no model store at that place.
    """
    telemetry, close_telemetry = telemetry_from_environment(
        "conductor-server",
        prometheus=settings.admin_http_port is not None,
        slow_seconds=settings.trace_slow_seconds,
    )
    try:
        async with application(
            settings, telemetry=telemetry, share_port=share_port, known_models_directory=known_models_directory
        ) as server:
            # What is there now stays until the end: the collector need not walk through it while requests wait.
            gc.collect()
            gc.freeze()
            on_ready(server)
            await serve_until_signal(server)
    finally:
        close_telemetry()
