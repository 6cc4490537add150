"""Tests that hang where pytest-timeout's exception does not reach end all the same, and tell where.

A library's lock, or a teardown that waits for what never comes after the exception was spent: then the process is
ended, what all of its threads were doing is printed, and pytest-xdist goes on with another one. pytest's own
``faulthandler_exit_on_timeout`` does that too, but is called off when a test fails, before its teardown.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest

more_seconds = 60.0
"""What a test has beyond its limit by pytest-timeout."""
_OUTPUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTPUT] = os.dup(2)  # now: while a test runs, its output is captured


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _arm(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    _arm(item)


def _arm(item: pytest.Item) -> None:
    marker = item.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker else item.config.getini("timeout") or 0)
    if limit:  # long forms have none
        faulthandler.dump_traceback_later(limit + more_seconds, file=item.config.stash[_OUTPUT], exit=True)
