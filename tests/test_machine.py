"""What judges seconds: a quiet machine excuses nothing, a busy one no more than it has lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

import ending
import machine
from machine import Evidence, within

BEGAN = 1000.0
"""A moment on the clock of those who make up their evidence."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make up what the machine has lost in the ten seconds until now."""

    def tell(*asleep: machine.Lost, at_work: tuple[machine.Lost, ...] = ()) -> None:
        monkeypatch.setattr(machine, "evidence", lambda since: Evidence(asleep, at_work))

    monkeypatch.setattr(machine.time, "monotonic", lambda: BEGAN + 10.0)
    return tell


def test_a_quiet_machine_excuses_nothing(told: Callable[..., None]) -> None:
    told()
    assert within(1.0, 1.0)
    assert not within(1.001, 1.0)
    assert not within(1.001, 1.0, BEGAN)
    assert not within(1.001, 1.0, BEGAN, share=0.5)
    assert not machine.disturbed(BEGAN)
    assert list(machine.tries(5)) == [0]


def test_a_stall_excuses_what_it_took_and_only_meanwhile(told: Callable[..., None]) -> None:
    told((BEGAN + 8.0, BEGAN + 8.5, 0.5))
    assert within(2.4, 2.0)
    assert not within(2.6, 2.0)
    assert not within(1.4, 1.0), "it was over by then"
    assert within(1.4, 1.0, BEGAN), "the longest of many may be the one that it hit"
    assert not within(1.4, 1.0, BEGAN, share=0.5), "half of them are not"
    assert not within(1.4, 1.0, BEGAN + 8.5)
    assert machine.disturbed(BEGAN)
    assert not machine.disturbed(BEGAN + 8.6)
    assert list(machine.tries(5)) == [0], "nothing during the try"


def test_slow_work_excuses_its_share(told: Callable[..., None]) -> None:
    told(at_work=((BEGAN, BEGAN + 5.0, 2.5), (BEGAN + 5.0, BEGAN + 10.0, 2.5)))
    assert within(1.9, 1.0)
    assert not within(2.1, 1.0)
    assert within(0.19, 0.1, BEGAN, share=0.5)
    assert not within(0.21, 0.1, BEGAN, share=0.5)
    assert machine.disturbed(BEGAN)


def test_what_the_machine_loses_is_noted() -> None:
    """Its watcher is stopped for a moment, as everybody would be on a machine that stands still."""
    watcher, began = machine.Watcher(), time.monotonic()
    os.kill(watcher.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(watcher.pid, signal.SIGCONT)
    assert 0.29 < watcher.ask(began).lost(1.0, began, began + 1.0) < 1.0
    later = time.monotonic()
    assert watcher.ask(later).lost(0.3, later, later + 0.3) < 0.3


def test_a_busy_machine_is_noted() -> None:
    """More who want to work than there are cores."""
    loop = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as others:
        for _ in range(2 * len(os.sched_getaffinity(0))):
            others.enter_context(ending.process(loop))
        deadline = time.monotonic() + 60
        while not machine.disturbed(time.monotonic() - 1.0):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        began = time.monotonic()
        time.sleep(2.0)
        took = time.monotonic() - began
    assert within(took, 0.95 * took), "without the others it would have been sooner"
    assert not within(took, 0.01 * took), "but not a hundred times"


def test_the_watcher_ends_with_who_began_it() -> None:
    program = [sys.executable, "-c", "import machine; print(machine.watch().pid)"]
    here = Path(machine.__file__).parent
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60, cwd=here)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
