"""Small files that settings name, such as keys and certificates: read at once, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MOST_BYTES = 1 << 20


def read_small(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """What a regular file holds.

    Anything else may stand in its place: a FIFO keeps its reader waiting for as long as nobody writes, and a device
    may never end. Who waited would be an event loop, or a thread that a process can't end without.

    Raises:
        OSError: it can't be read, or is no regular file.
        ValueError: it holds more than ``most_bytes``.
    """
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"{path} holds more than {most_bytes} bytes")
    return content


def _at_once(path: str, flags: int) -> int:
    """Opening a FIFO waits, too."""
    return os.open(path, flags | os.O_NONBLOCK)
