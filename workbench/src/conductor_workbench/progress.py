"""Progress of long work, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_LINES_APART_SECONDS = 5.0


class ProgressDisplay:
    """A bar on a terminal; elsewhere (a log, a pipe) a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not self._terminal,
        )
        self._task = self._bars.add_task("", visible=False)
        self._began = time.monotonic()
        self._last_line = 0.0

    def step(self, what: str, done: int, total: int) -> None:
        """Tell how far ``what`` is."""
        if self._terminal:
            self._bars.update(self._task, description=what, completed=done, total=total, visible=True)
        elif total > 1 and (done >= total or time.monotonic() - self._last_line > _LINES_APART_SECONDS):
            self._last_line = time.monotonic()
            print(f"… {what}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    def say(self, message: str) -> None:
        """Tell what is being done now."""
        if self._terminal:
            self._bars.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {message}", highlight=False)
        else:
            print(f"… {message}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
