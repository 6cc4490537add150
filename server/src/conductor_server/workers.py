"""Several processes that share a port, and the supervisor that replaces those that die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from conductor_rpc.settings import SettingsInvalid
from conductor_server.settings import ServerSettings
from conductor_server.worker_process import WorkerProcess

_LOG = logging.getLogger(__name__)
_HEALTHY_SECONDS = 5.0
_LAST_BACKOFF_SECONDS = 5.0
_STOP_MARGIN_SECONDS = 5.0
_START_MARGIN_SECONDS = 30.0


def settings_of(settings: ServerSettings, slot: int) -> ServerSettings:
    """A worker's settings: it shares the port, but has admin ports of its own, told apart by its slot (0, 1, …)."""
    ports = {"admin_http_port": settings.admin_http_port, "admin_grpc_port": settings.admin_grpc_port}
    return settings.model_copy(update={name: port + slot for name, port in ports.items() if port})


class WorkerFailed(RuntimeError):
    """A worker could not start; its log says why."""


class Workers:
    """Supervises serving processes. SO_REUSEPORT lets the kernel spread connections over them."""

    def __init__(self, settings: ServerSettings, known_models_directory: Path) -> None:
        self._settings, self._known_models_directory = settings, known_models_directory
        self._processes: dict[int, WorkerProcess] = {}
        self._stopping = asyncio.Event()

    @property
    def process_ids(self) -> list[int]:
        """Ids of the processes that run."""
        return [process.pid for process in self._processes.values()]

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start all, say so when all serve, and keep them up until ``stop``.

        Raises:
            WorkerFailed: one could not start at first.
        """
        first = await asyncio.gather(*(self._start(slot) for slot in range(self._settings.workers)))
        if not all(first) and not self._stopping.is_set():
            await self.stop()
            raise WorkerFailed("a worker could not start")
        if not self._stopping.is_set():
            on_ready()
        await asyncio.gather(*(self._keep_up(slot) for slot in range(self._settings.workers)))

    async def stop(self) -> None:
        """SIGTERM to all; SIGKILL to those that have not gone when grace and drain are over."""
        self._stopping.set()
        processes = list(self._processes.values())
        for process in processes:
            process.terminate()
        seconds = self._settings.grace_seconds + self._settings.drain_seconds + _STOP_MARGIN_SECONDS
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(process.wait() for process in processes))
        except TimeoutError:
            for process in processes:
                process.kill()

    async def _keep_up(self, slot: int) -> None:
        backoff_seconds = 0.05
        while True:
            started = time.monotonic()
            process = self._processes[slot]
            code = await process.wait()
            if self._stopping.is_set():
                return
            _LOG.error("worker %d (process %d) ended with %d; starting another one", slot, process.pid, code)
            # One that lived is replaced at once. One that dies while starting must not burn a processor.
            lived = time.monotonic() - started > _HEALTHY_SECONDS
            backoff_seconds = 0.05 if lived else min(2 * backoff_seconds, _LAST_BACKOFF_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_seconds)
                return
            await self._start(slot)

    async def _start(self, slot: int) -> bool:
        """Start a process in a slot and wait until it serves.

        Returns:
            Whether it does; else it has ended.
        """
        process = WorkerProcess(settings_of(self._settings, slot), self._known_models_directory)
        self._processes[slot] = process
        if self._stopping.is_set():
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.model_first_load_seconds + _START_MARGIN_SECONDS):
                if await process.start():
                    return True
        process.kill()
        return False


async def serve_workers(settings: ServerSettings, on_ready: Callable[[int], None]) -> None:
    """Serve with ``settings.workers`` processes until SIGTERM or SIGINT.

    Args:
        settings: Port 0 takes a free one, the same for all.
        on_ready: Called with the port when all serve.

    Raises:
        SettingsInvalid: the port is taken.
        WorkerFailed: a worker could not start.
    """
    async with _reserved_port(settings) as port, _directory() as known_models_directory:
        workers = Workers(settings.model_copy(update={"port": port}), known_models_directory)
        loop = asyncio.get_running_loop()
        stops: list[asyncio.Task[None]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: stops.append(loop.create_task(workers.stop())))
        try:
            await workers.run(lambda: on_ready(port))
        finally:
            await workers.stop()
            await asyncio.gather(*stops)


@asynccontextmanager
async def _reserved_port(settings: ServerSettings) -> AsyncIterator[int]:
    """Hold the port without listening, so that the workers can come and go on it and nobody else gets it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        if _is_listened_on(family, settings):
            raise SettingsInvalid(f"can't listen on {settings.host}:{settings.port}: is the port taken?")
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((settings.host.strip("[]"), settings.port))
        except OSError as error:
            raise SettingsInvalid(f"can't listen on {settings.host}:{settings.port}: {error.strerror}") from error
        yield holder.getsockname()[1]


def _is_listened_on(family: socket.AddressFamily, settings: ServerSettings) -> bool:
    """SO_REUSEPORT alone would let two supervisors of one user share a port unawares."""
    if settings.port == 0:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host.strip("[]"), settings.port))
        except OSError:
            return True
    return False


@asynccontextmanager
async def _directory() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="conductor-models-") as directory:
        yield Path(directory)
