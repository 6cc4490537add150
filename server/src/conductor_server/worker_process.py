"""A worker as its supervisor sees it: forked from a process that has imported everything (``preloaded.py``).

So one that is lost is there again in a moment, and its start leaves the processors to those that serve. Imports alone
would take a second of one.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
from pathlib import Path

from conductor_server import worker
from conductor_server.settings import ServerSettings

_LOG = logging.getLogger(__name__)
_NEVER_FORKED = 1
"""Told as the exit code of a process that there was never any of."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["conductor_server.preloaded"])


class WorkerProcess:
    """One of several processes that share a port."""

    def __init__(self, settings: ServerSettings, known_models_directory: Path) -> None:
        self._ready, self._tells_ready = _CONTEXT.Pipe(duplex=False)
        self._outlived, self._lifeline = _CONTEXT.Pipe(duplex=False)
        # Not as arguments of a command: those can be read by everybody on the machine.
        given = (settings.model_dump_json(), str(known_models_directory), self._tells_ready, self._outlived)
        self._process = _CONTEXT.Process(target=worker.main, args=given, daemon=True)
        self._stopped = False
        self._ending: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 before there is one."""
        return self._process.pid or 0

    async def start(self) -> bool:
        """Start it and wait; whether it serves, or has ended instead."""
        # What Python starts below must not import from wherever we were started.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        forked = asyncio.create_task(asyncio.to_thread(self._process.start))
        self._ending = asyncio.create_task(self._ended(forked))
        await asyncio.wait({forked})
        self._tells_ready.close()
        self._outlived.close()
        if self._stopped:
            self.terminate()
        await _readable(self._ready.fileno())
        try:
            return self._ready.recv_bytes() == worker.READY
        except EOFError:
            return False
        finally:
            self._ready.close()

    async def wait(self) -> int:
        """Wait until it has ended, and give its exit code; negative for a signal. Several may wait.

        One that is being forked is waited for, too: whoever stops it then has not seen it end yet.
        """
        if self._ending is None:
            return 0  # it was never started
        return await asyncio.shield(self._ending)

    async def _ended(self, forked: asyncio.Task[None]) -> int:
        try:
            await forked
        except (OSError, EOFError) as error:  # no descriptor or process left, or what forks has died
            _LOG.error("a worker can't be forked: %s", error)
            self._lifeline.close()
            return _NEVER_FORKED
        await _readable(self._process.sentinel)
        self._process.join()
        # If it has only lost the process that it was forked from, it ends now: another one takes its place.
        self._lifeline.close()
        return self._process.exitcode or 0

    def terminate(self) -> None:
        """Ask it to drain and end."""
        self._stopped = True
        # The signal is lost on one that has only just been forked; it finds this out instead.
        self._lifeline.close()
        if self._process.pid is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self._process.pid is not None:
            self._process.kill()


async def _readable(file: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(file, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(file)
