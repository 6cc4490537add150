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
LONG_SECONDS = 300.0
_OUTPUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """More time for what takes long by itself, or may be the first to start a platform and to train its models."""
    if 0 < limit(config) < LONG_SECONDS:
        for item in items:
            if item.get_closest_marker("long") or "scene" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(LONG_SECONDS))


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
    seconds = float(marker.args[0]) if marker else limit(item.config)
    if seconds:
        faulthandler.dump_traceback_later(seconds + more_seconds, file=item.config.stash[_OUTPUT], exit=True)


def limit(config: pytest.Config) -> float:
    """Seconds that a test without a limit of its own may take; 0 for ever, as long forms do."""
    asked = config.getoption("timeout")
    return float(config.getini("timeout") or 0) if asked is None else float(asked)
