"""A small file that may be replaced while the process runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from conductor_client.small_file import read_small

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 10.0
_MAX_BYTES = 16 << 20

Content = TypeVar("Content")


class WatchedFile(Generic[Content]):
    """What a file says now, give or take a quarter of a second.

    A file that can't be used may be half-written, so what it said before holds for ten seconds more; then it says
    nothing: what was taken out of it must not stay in force for as long as the file is broken.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Content], nothing: Content) -> None:
        """``parse`` raises ValueError for what can't be used. ``nothing``: what an unusable file says in the end."""
        self._path, self._parse, self._nothing = path, parse, nothing
        self._content = nothing
        self._stamp: object = None
        self._looked, self._usable_until = float("-inf"), float("inf")

    def load(self) -> Content:
        """Read it now.

        Raises:
            OSError: it can't be read.
            ValueError: it can't be used.
        """
        stat = self._path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp != self._stamp or self._usable_until != float("inf"):
            if stat.st_size > _MAX_BYTES:
                raise ValueError("the file is too large")
            self._content = self._parse(read_small(self._path, _MAX_BYTES))
            self._stamp, self._usable_until = stamp, float("inf")
        return self._content

    def current(self) -> Content:
        """What it says; looks at the file at most four times a second, and reads it only when it has changed."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._look(now)
        return self._content

    def _look(self, now: float) -> None:
        try:
            self.load()
        except (OSError, ValueError) as error:
            if self._usable_until == float("inf"):
                self._usable_until = now + _PATIENCE_SECONDS
                _LOG.error("%s can't be used (%s): it holds for %g s more", self._path, error, _PATIENCE_SECONDS)
            elif now >= self._usable_until and self._content is not self._nothing:
                self._content = self._nothing
                _LOG.error("%s still can't be used (%s): nobody is let in by it", self._path, error)
