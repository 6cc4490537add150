"""How long the verifying process waits for one model: for its time on the processor, not for others' work."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import ending
from conductor_server.models import verifier_child
from conductor_server.models.verifier_wire import MOST_EXTENSIONS


def _answers(script: str, seconds: float) -> bool:
    with ending.process(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return verifier_child._answers(process.pid, process.stdout.fileno(), seconds)


def test_who_was_kept_waiting_has_more_time():
    assert _answers("sleep 1.2; echo ok", 1.0)


def test_who_ran_all_the_time_has_not():
    began = time.monotonic()
    assert not _answers("while :; do :; done", 0.5)
    assert time.monotonic() - began >= 0.5


def test_who_never_runs_is_given_up_too():
    began = time.monotonic()
    assert not _answers("exec sleep 60", 0.4)
    assert time.monotonic() - began >= 0.4 * (1 + MOST_EXTENSIONS)


def test_the_time_on_the_processor_is_that_of_the_process():
    began, before = time.process_time(), verifier_child._processor_seconds(_self())
    while time.process_time() - began < 0.1:
        pass
    after = verifier_child._processor_seconds(_self())
    assert 0.05 < after - before <= time.process_time() - began + 0.05
    assert verifier_child._processor_seconds(2**30) == 0.0  # nobody


def _self() -> int:
    return int(Path("/proc/self/stat").read_text().split()[0])
