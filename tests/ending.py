"""Processes and threads of tests: none is waited for without end, and none outlives its test.

A process that did would hold the suite's own output open, and whoever reads that would wait for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from conductor_workbench.embedded import child

SECONDS = 60.0
"""For what was told to end: far more than it takes on a busy machine."""


@contextmanager
def process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start it. If it is still there after the block, or after us, it is killed."""
    with subprocess.Popen(child.leashed(command), **options) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def thread(run: Callable[[threading.Event], object], name: str | None = None) -> Iterator[threading.Thread]:
    """Run it in a thread. After the block it is told to stop, and must end."""
    stop = threading.Event()
    # A daemon: one that hangs is a failure, and must not keep the process from ending besides.
    running = threading.Thread(target=run, args=(stop,), name=name, daemon=True)
    running.start()
    try:
        yield running
    finally:
        stop.set()
        running.join(SECONDS)
    assert not running.is_alive(), "told to stop, it goes on"


async def kill(started: asyncio.subprocess.Process) -> None:
    """Kill it, and what it has started: it must have begun a session of its own.

    ``Process.wait`` waits until its pipes are closed, so for everyone who has inherited them.
    """
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    await asyncio.wait_for(started.wait(), SECONDS)
