"""Runs programs as ``python -c`` does, each in a process of its own, without waiting for it to import anything.

The processes are forks of one that has imported already what the programs are about.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping

_CONTEXT = multiprocessing.get_context("forkserver")
_IMPORTED = [
    "conductor_model_store.settings",
    "conductor_warehouse.bulk",
    "conductor_warehouse.features.backfill",
    "conductor_warehouse.streams.consumer",
    "conductor_warehouse.streams.selection",
    "conductor_warehouse.tailing_writer",
]
_SECONDS = 100.0
"""The first one waits for the imports, too."""


def run(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> int:
    """Run it to its end, in our environment and more of it; returns its exit code, negative for a signal."""
    everything = os.environ | dict(environment or {})
    # The list is one for all that fork in this process; it counts where this is the first.
    _CONTEXT.set_forkserver_preload(_IMPORTED)
    process = _CONTEXT.Process(target=_run, args=(program, arguments, everything))
    process.start()
    process.join(_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join(_SECONDS)
        raise TimeoutError(f"not at its end after {_SECONDS:.0f} s")
    return process.exitcode


def _run(program: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102 - the tests' own
