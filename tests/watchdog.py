"""Ends the process of a test that does not end even when pytest-timeout tells it to, so that the others get their turn.

A timeout by signal is an exception in the main thread. It ends no teardown that waits for what never comes, no C code,
and no thread that the event loop waits for at its end. What all threads were doing then is printed; pytest-xdist names
the test as one that crashed its worker, and goes on with another.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest
from pytest_timeout import Settings

SECONDS = 60.0
"""More than pytest-timeout gives it."""
_limit = pytest.StashKey[float]()
_output = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_output] = os.dup(2)  # now: while a test runs, its output is captured


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> None:
    item.stash[_limit] = settings.timeout + SECONDS
    _arm(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    if _limit in item.stash:
        _arm(item)  # again: pytest calls it off when a test fails
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer() -> None:
    faulthandler.cancel_dump_traceback_later()


def _arm(item: pytest.Item) -> None:
    faulthandler.dump_traceback_later(item.stash[_limit], file=item.config.stash[_output], exit=True)
