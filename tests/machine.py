"""How much this machine held up what was measured. Criteria in seconds hold on a quiet one; others may keep it busy.

A process of its own notes all the time what the machine takes from it (`machine_watch.py`). What it lost in the very
time of a measurement is allowed for, and nothing else: a quiet machine gives nothing. It can't tell who kept it
waiting; what a test itself asks of the machine is in its bound, or in what it compares with.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import machine_watch
from machine_watch import Lost

STRETCH_SECONDS, MUCH_SECONDS = 0.1, 0.02
"""A machine that has lost so much in so short a time is not quiet."""


@dataclass(frozen=True)
class Evidence:
    """What was lost, each in order of time: by waking up late, and by work that took longer."""

    asleep: Sequence[Lost]
    at_work: Sequence[Lost]

    def lost(self, seconds: float, since: float, until: float, share: float = 1.0) -> float:
        """The most that was lost in any so many seconds of a time, or in that ``share`` of them that lost least."""
        count = 1 + max(0, math.ceil((until - since - seconds) / seconds * 2))
        begins = np.maximum(until - seconds - np.arange(count) * seconds / 2, min(since, until - seconds))
        asleep, at_work = (_lost_by(begins + seconds, one) - _lost_by(begins, one) for one in self._kinds)
        found = np.sort(np.maximum(asleep, at_work))
        return float(found[min(len(found) - 1, int(len(found) * share))])

    def disturbed(self, since: float, until: float) -> bool:
        """Whether so much was lost at a time that what happened meanwhile tells little."""
        return self.lost(STRETCH_SECONDS, since, until) > MUCH_SECONDS

    @property
    def _kinds(self) -> tuple[Sequence[Lost], Sequence[Lost]]:
        return self.asleep, self.at_work


def within(seconds: float, bound: float, since: float | None = None, share: float = 1.0) -> bool:
    """Whether it was in time, or would have been without what the machine lost meanwhile.

    ``since``: when the first of several measurements began of which this is the longest; without it, the only one has
    just ended. ``share``: of the measurements that were as short, where it is not the longest.
    """
    if seconds <= bound:
        return True
    until = time.monotonic()
    since = until - seconds if since is None else since
    return seconds - evidence(since).lost(seconds, since, until, share) <= bound


def tries(most: int) -> Iterator[int]:
    """Numbers of tries: one, and one more only where the machine lost much during the last one."""
    for number in range(most):
        began = time.monotonic()
        yield number
        if not disturbed(began):
            return


def processor_seconds(work: Callable[[], object]) -> float:
    """What it takes of this process's time on the processor: the least of three, without what others add to it."""
    found = []
    for _ in range(3):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def disturbed(since: float) -> bool:
    """Whether it has lost so much at a time since then that what happened meanwhile tells little."""
    return evidence(since).disturbed(since, time.monotonic())


def slowness() -> float:
    """How many times as long as on a quiet machine work takes now; at least 1."""
    return statistics.mean(machine_watch.work() for _ in range(10))


def evidence(since: float) -> Evidence:
    """What the machine has lost from then on until now."""
    return watch().ask(since)


class Watcher:
    """The process that notes it. It ends when this one does: then its input ends."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        command = [sys.executable, "-I", "-S", str(Path(machine_watch.__file__))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask(time.monotonic())

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, since: float) -> Evidence:
        assert self._process.stdin and self._process.stdout
        with self._asking:
            self._process.stdin.write(f"{since}\n")
            self._process.stdin.flush()
            return Evidence(**json.loads(self._process.stdout.readline()))


@functools.cache
def watch() -> Watcher:
    """Begin to look: before anything is measured."""
    return Watcher()


def _lost_by(moments: NDArray[np.float64], lost: Sequence[Lost]) -> NDArray[np.float64]:
    """How much had been lost by each moment."""
    found = np.array(lost, dtype=np.float64).reshape(-1, 3)
    if not len(found):
        return np.zeros(len(moments))
    after = np.cumsum(found[:, 2])
    return np.interp(moments, found[:, :2].ravel(), np.column_stack((after - found[:, 2], after)).ravel())
