"""One of several serving processes, forked for ``worker_process.py``.

A pipe from the supervisor stays open for as long as that lives: when it ends, the worker drains as on SIGTERM, so no
worker outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from conductor_rpc.logs import configure_logging
from conductor_rpc.server import RpcServer, run
from conductor_server.process import serve_process
from conductor_server.settings import ServerSettings

READY = b"serving"
NAME = "conductor-serve"
"""What ``ps`` and ``top`` call it; 15 bytes at most."""


def main(settings_json: str, known_models_directory: str, tells_ready: Connection, outlived: Connection) -> None:
    """Serve until told to stop; says when it serves."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it was ignored where we were forked
    if outlived.poll():  # and one that came before now was, too
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(NAME)
    settings = ServerSettings.model_validate_json(settings_json)
    configure_logging(settings)

    def ready(server: RpcServer) -> None:
        asyncio.get_running_loop().add_reader(outlived.fileno(), _supervisor_gone, server, outlived)
        tells_ready.send_bytes(READY)
        tells_ready.close()

    run(serve_process(settings, ready, share_port=True, known_models_directory=Path(known_models_directory)))


def _supervisor_gone(server: RpcServer, outlived: Connection) -> None:
    """The pipe became readable, and nothing is ever written to it: its other end is gone."""
    asyncio.get_running_loop().remove_reader(outlived.fileno())
    server.ask_stop()
