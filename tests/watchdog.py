"""Tests that hang end, although pytest-timeout's exception does not reach them: others get their turn, and are told.

That exception is raised wherever the main thread is when the time is over. In a callback of an event loop, in a task
that nobody awaits or in the garbage collector it is lost, and the test waits on: so it is raised again and again. It
ends no C code, and no teardown that waits for what never comes: so in the end the process is ended, what all threads
were doing is printed, and pytest-xdist goes on with another one.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Generator

import pytest
from pytest_timeout import Settings

AGAIN_SECONDS = 10.0
"""Between one exception and the next."""
MORE_SECONDS = 60.0
"""Until the process is ended, beyond pytest-timeout's time."""
_limit = pytest.StashKey[float]()
_deadline = pytest.StashKey[float]()
_output = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_output] = os.dup(2)  # now: while a test runs, its output is captured


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> None:
    item.stash[_limit] = settings.timeout + MORE_SECONDS
    item.stash[_deadline] = time.monotonic() + settings.timeout
    _arm(item)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer() -> None:
    faulthandler.cancel_dump_traceback_later()


def _again(item: pytest.Item) -> Generator[None, object, object]:
    """Only within a test's own parts: raised in pytest's code, it would end the whole run."""
    _let_ring(item, AGAIN_SECONDS)
    try:
        return (yield)
    finally:
        _let_ring(item, 0)


pytest_runtest_setup = pytest.hookimpl(wrapper=True, tryfirst=True)(_again)
pytest_runtest_call = pytest.hookimpl(wrapper=True, tryfirst=True)(_again)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    if _limit in item.stash:
        _arm(item)  # again: pytest calls it off when a test fails
    return (yield from _again(item))


def _let_ring(item: pytest.Item, again_seconds: float) -> None:
    if signal.getitimer(signal.ITIMER_REAL)[0]:  # it is pytest-timeout's, and nobody called it off
        left = item.stash[_deadline] - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(left, 0), again_seconds)


def _arm(item: pytest.Item) -> None:
    faulthandler.dump_traceback_later(item.stash[_limit], file=item.config.stash[_output], exit=True)
