"""Measurements in processes of their own, so that one does not pay for what another has imported.

A child is a module with a ``main`` that answers lines of JSON on standard input with lines of JSON on standard output.
It ends when its input ends, or with its parent.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conductor_workbench.embedded import child


class Child:
    """A measuring process. Use as ``with Child("conductor_workbench.bench.load", log) as load``."""

    def __init__(self, module: str, log: Path) -> None:
        """``log``: where its standard error goes."""
        self._module, self._log = module, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; raises RuntimeError when it is not running."""
        return self._running().pid

    def ask(self, request: dict[str, Any], patience_seconds: float = 300.0) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises ChildFailed with the end of the log if none comes in time."""
        process = self._running()
        answer = b""
        if process.stdin is not None and process.stdout is not None and process.poll() is None:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            waiting = select.poll()
            waiting.register(process.stdout, select.POLLIN)
            if not waiting.poll(patience_seconds * 1e3):
                process.kill()
            answer = process.stdout.readline()
        if not answer:
            process.wait(10)
            tail = self._log.read_text(errors="replace")[-2000:]
            raise child.ChildFailed(f"{self._module} ended with {process.returncode}\n{tail}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self._module} is not running")
        return self._process

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            # A session of its own, as in `embedded.child`: Ctrl-C reaches the parent, which stops its children.
            self._process = subprocess.Popen(
                child.leashed([sys.executable, "-P", "-m", self._module]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kind is not None:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answer_requests(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other side of :class:`Child`: answer each line until there are no more."""
    # Libraries print to standard output now and then: that must not be taken for an answer.
    output, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        output.write(json.dumps(answer(json.loads(line))) + "\n")
        output.flush()
