"""The suite comes to its end whatever a test does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import watchdog
from machine import tries

TRIES = 5
"""A machine that stands still for the second that the limit is has them ended before they hang."""
_LOCKED = """
import ctypes, watchdog
watchdog.more_seconds = -99.0

def test_that_waits_in_a_library():
    library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)
"""
_TEARDOWN = """
import pytest, threading, watchdog
watchdog.more_seconds = -99.0

@pytest.fixture
def for_ever():
    yield
    threading.Event().wait()

def test_that_fails(for_ever):
    assert not "but hangs"
"""


def _end(file: Path, content: str, place: str) -> None:
    """Run it: it must be ended there, and tell so."""
    file.write_text(content)
    (file.parent / "pytest.ini").write_text("[pytest]\ntimeout = 100\n")  # that of pytest-timeout is not what is tried
    command = [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-p", "watchdog", str(file)]
    environment = {"PYTHONPATH": str(Path(watchdog.__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for _ in tries(TRIES):
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=False)
        assert done.returncode == 1 and "1 passed" not in done.stdout and "1 failed" not in done.stdout, done.stdout
        if f"in {place}" in done.stderr:
            return
    raise AssertionError(done.stderr)


def test_a_lock_in_a_library(tmp_path: Path) -> None:
    _end(tmp_path / "test_it.py", _LOCKED, "test_that_waits_in_a_library")


def test_a_teardown_of_a_test_that_failed(tmp_path: Path) -> None:
    _end(tmp_path / "test_it.py", _TEARDOWN, "for_ever")


@pytest.mark.parametrize(
    ("ini", "asked", "usual", "long"),
    [("120", None, 120.0, 300.0), ("120", "900", 900.0, 900.0), ("0", None, 0.0, 0.0), ("120", "0", 0.0, 0.0)],
    ids=["as it is", "a longer one is asked for", "long form", "long form that asks for it"],
)
def test_limits(ini: str, asked: str | None, usual: float, long: float) -> None:
    """Files that take long have more time, unless all have still more or no end of it."""
    config = SimpleNamespace(getini={"timeout": ini}.get, getoption={"timeout": asked}.get)
    marked: list[pytest.MarkDecorator] = []
    item = SimpleNamespace(get_closest_marker=lambda name: name == "long", add_marker=marked.append)
    watchdog.pytest_collection_modifyitems(config, [item])  # type: ignore[arg-type,list-item]
    assert watchdog.limit(config) == usual  # type: ignore[arg-type]
    assert [mark.args[0] for mark in marked] == ([long] if long != usual else [])
