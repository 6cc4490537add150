"""One of several serving processes. Started by ``workers.py``; its settings come over standard input.

Standard input stays open for as long as the supervisor lives: when it ends, the worker drains as on SIGTERM, so no
worker outlives its supervisor. One line on standard output says that it serves.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from conductor_rpc.logs import configure_logging
from conductor_rpc.server import RpcServer, run
from conductor_server.process import serve_process
from conductor_server.settings import ServerSettings

READY = b"serving\n"


def main() -> None:
    """Serve until told to stop."""
    settings = ServerSettings.model_validate_json(sys.stdin.readline())
    known_models_directory = Path(sys.stdin.readline().rstrip("\n"))
    configure_logging(settings)
    run(serve_process(settings, _ready, share_port=True, known_models_directory=known_models_directory))


def _ready(server: RpcServer) -> None:
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _watch_supervisor, server)
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()


def _watch_supervisor(server: RpcServer) -> None:
    """Standard input became readable, and nothing more is ever written to it: the supervisor is gone."""
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    server.ask_stop()


if __name__ == "__main__":
    main()
