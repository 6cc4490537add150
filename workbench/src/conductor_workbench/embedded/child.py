"""Child processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Children are forked beside open gRPC channels and use none of them. gRPC would go on polling in the fork, before it
# becomes the child, and now and then abort it. Said before gRPC starts, so where this module is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

_LEASH = str(Path(__file__).with_name("leash.py"))


class ChildFailed(RuntimeError):
    """A child process ended, or did not come up in time. The message holds the end of its log."""


def leashed(command: Sequence[str], user: int | None = None) -> list[str]:
    """``command``, run as ``user`` and interrupted by the kernel when the thread that started it ends (Linux).

    ``preexec_fn`` would do the same in a fork of this process, which may wait without end for what another thread held:
    gRPC, Arrow and OpenBLAS all have threads. Without it Python starts children by vfork, which runs nothing of ours.
    """
    return [sys.executable, "-I", "-S", _LEASH, str(os.getpid()), str(-1 if user is None else user), *command]


def spawn(
    command: Sequence[str], log: Path, *, user: int | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output in ``log``, as ``user`` if one is given, in our environment if none is."""
    with log.open("ab") as output:
        # A session of its own: Ctrl-C in the terminal reaches us first, and we stop the child in order.
        process = subprocess.Popen(
            leashed(command, user),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    process.args = command  # what messages name
    return process


def wait_until(
    ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, timeout_seconds: float = 30.0
) -> None:
    """Return once ``ready()`` holds; raise :class:`ChildFailed` if the child ends or the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        ended = child.poll() is not None
        if ended or time.monotonic() > deadline:
            what = f"ended with {child.returncode}" if ended else f"not ready after {timeout_seconds:.0f} s"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise ChildFailed(f"{child.args!r} {what}\n{tail}")
        time.sleep(0.02)


def stop(child: subprocess.Popen[bytes], stop_signal: signal.Signals, timeout_seconds: float = 10.0) -> None:
    """Ask the child to stop; kill it if it does not within the time."""
    if child.poll() is not None:
        return
    child.send_signal(stop_signal)
    try:
        child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
