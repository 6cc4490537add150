"""Changing a file that others read: whole or not at all, one after the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Change:
    """What a file says, and is to say."""

    content: bytes


@contextmanager
def changing(file: Path) -> Iterator[Change]:
    """Read a file (empty if absent), and put what it is to say in its place, on the disk, when the block ends well.

    Others who change it wait; who reads it sees the old or the new. A new file is its owner's only; a changed one stays
    with the owner, group and mode that it has.

    Raises:
        OSError: it can't be read or written; then it is as it was.
    """
    lock = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = file.read_bytes() if file.exists() else b""
        change = Change(before)
        yield change
        if change.content != before:
            _replace(file, change.content)
    finally:
        os.close(lock)


def _replace(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            if file.exists():
                _like(file, out.fileno())
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _like(file: Path, descriptor: int) -> None:
    """Else a server of another user could not read what an administrator has changed."""
    stat = file.stat()
    with contextlib.suppress(PermissionError):  # only a superuser gives files away
        os.fchown(descriptor, stat.st_uid, stat.st_gid)
    os.fchmod(descriptor, stat.st_mode & 0o777)
