"""The suite comes to its end whatever a test does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import watchdog

_HANGS = """
import threading, time
import pytest, watchdog
watchdog.SECONDS = 0.5

@pytest.fixture
def for_ever():
    yield
    threading.Event().wait()

@pytest.mark.timeout(0.5)
def test_that_hangs_and_fails_and_hangs_again(for_ever):
    time.sleep(60)
"""


def test_a_teardown_without_end_ends_the_process_and_tells_where(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(_HANGS)
    command = [sys.executable, "-m", "pytest", "-p", "watchdog", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    environment = {"PYTHONPATH": str(Path(watchdog.__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, "-p", "pytest_timeout", str(tmp_path)],
        capture_output=True, text=True, timeout=60, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "in for_ever" in done.stderr, done.stdout + done.stderr
    assert "passed" not in done.stdout and "failed" not in done.stdout, "it did not get that far"
