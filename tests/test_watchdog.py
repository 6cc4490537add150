"""The suite comes to its end whatever a test does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import watchdog

_BEGIN = """
import asyncio, signal, threading, time
import pytest, watchdog
watchdog.AGAIN_SECONDS = 0.2
"""
_SWALLOWED = f"""{_BEGIN}
@pytest.mark.timeout(0.5)
def test_that_waits_for_ever():
    async def main():
        asyncio.get_running_loop().call_soon(time.sleep, 0.6)
        await asyncio.Event().wait()
    asyncio.run(main())
"""
_TEARDOWN = f"""{_BEGIN}
watchdog.MORE_SECONDS = 0.5

@pytest.fixture
def for_ever():
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)  # as in C code, which no exception gets into
    threading.Event().wait()

@pytest.mark.timeout(0.5)
def test_that_waits_for_ever(for_ever):
    time.sleep(60)
"""


def _run(file: Path, content: str) -> subprocess.CompletedProcess[str]:
    file.write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-p", "watchdog", "-c", "/dev/null", str(file)]
    environment = {"PYTHONPATH": str(Path(watchdog.__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_a_timeout_that_an_event_loop_swallows_is_raised_again(tmp_path: Path) -> None:
    done = _run(tmp_path / "test_it.py", _SWALLOWED)
    assert "1 failed" in done.stdout and "Timeout (>0.5s)" in done.stdout, done.stdout + done.stderr


def test_a_teardown_without_end_ends_the_process_and_tells_where(tmp_path: Path) -> None:
    done = _run(tmp_path / "test_it.py", _TEARDOWN)
    assert done.returncode == 1 and "in for_ever" in done.stderr, done.stdout + done.stderr
    assert "1 failed" not in done.stdout, "it did not get that far"
