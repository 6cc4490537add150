"""Parses files beside each other, in processes of their own: a file that stops the parser stops only those."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from conductor_warehouse.code_graph.facts import FileFacts

MOST_SECONDS = 5.0
"""Processor time for one file: code takes a hundredth of that."""
_TOGETHER = 50
_FEW = 20
"""So few files are not worth processes for all of them."""
_HANG = FileFacts(problem="it makes the parser crash or hang")

Work = tuple[str, bytes]
"""Path and contents."""


def parse_all(
    files: Sequence[Work], processes: int | None = None, most_seconds: float = MOST_SECONDS
) -> Iterator[tuple[str, FileFacts]]:
    """The facts of each file, in any order, as they become known. A file may take ``most_seconds`` of a processor."""
    parts = [files[at : at + _TOGETHER] for at in range(0, len(files), _TOGETHER)]
    broken: list[Work] = []
    workers = 1 if len(files) <= _FEW else processes or min(os.cpu_count() or 1, len(parts))
    with _pool(workers) as pool:
        waiting: dict[Future[list[FileFacts]], Sequence[Work]] = {}
        for part in parts:
            try:
                waiting[pool.submit(_parse, part, most_seconds)] = part
            except BrokenProcessPool:
                broken.extend(part)
        for future in as_completed(waiting):
            try:
                yield from zip([path for path, _ in waiting[future]], future.result(), strict=True)
            except BrokenProcessPool:
                broken.extend(waiting[future])
    yield from _one_by_one(broken, most_seconds)


def _one_by_one(files: Sequence[Work], most_seconds: float) -> Iterator[tuple[str, FileFacts]]:
    """Those that were under way when a process ended: one of them ended it."""
    at = 0
    while at < len(files):
        with _pool(1) as pool:
            try:
                while at < len(files):
                    [facts] = pool.submit(_parse, [files[at]], most_seconds).result()
                    yield files[at][0], facts
                    at += 1
            except BrokenProcessPool:
                yield files[at][0], _HANG
                at += 1


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: the command's progress line is another thread.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _parse(files: Sequence[Work], most_seconds: float) -> list[FileFacts]:
    from conductor_warehouse.code_graph.languages import read_facts  # noqa: PLC0415 - in the child only

    found = []
    for path, data in files:
        # Ends the process: the parser can't be told to stop in all that it does.
        signal.setitimer(signal.ITIMER_PROF, most_seconds)
        try:
            found.append(read_facts(path, data))
        except Exception as error:  # whatever is in the file, the others are read
            found.append(FileFacts(problem=f"it could not be read: {type(error).__name__}"))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return found
