"""The audit log: who did what to the installation, a JSON line each. For servers and commands alike."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import re
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

# Shorter than any token or key.
_HARMLESS = re.compile(r"[\w.:/@-]{1,63}", re.ASCII)


class AuditLog:
    """Appends records. What was appended is on the disk when it returns."""

    def __init__(self, file: Path | None) -> None:
        """``file``: None for standard error."""
        self._file = file

    def append(self, record: Mapping[str, object]) -> None:
        """Write one record, with the time, as a line of its own. Processes may share the file; it may be moved away.

        Raises:
            OSError: it can't be written; then the file is as it was.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"audit": "conductor", "time": time, **record}, ensure_ascii=True) + "\n"
        if self._file is None:
            self._tell(line)
        else:
            self._append(self._file, line.encode())

    @staticmethod
    def _tell(line: str) -> None:
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except ValueError as error:  # it was closed
            raise OSError(str(error)) from error

    @staticmethod
    def _append(file: Path, line: bytes) -> None:
        # Opening a FIFO that nobody reads would wait for ever, in a thread that others need.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(file, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)
                raise OSError(f"{file} takes no whole line any more")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def told(value: object) -> object:
    """A value as the log tells it: names and numbers; anything else is only said to have been there."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if not text or _HARMLESS.fullmatch(text) else "(not told)"


@contextmanager
def audited_command(log: AuditLog, method: str, **resource: object) -> Iterator[dict[str, object]]:
    """Around what a command does: a line before, without which nothing is done, and one after.

    Gives the resource, to which what becomes known may be added.

    Raises:
        OSError: the first line can't be written; or the second, whose outcome is then not in the log.
    """
    record: dict[str, object] = {
        "call_id": uuid.uuid4().hex,
        "method": method,
        "subject": f"{getpass.getuser()}@{socket.gethostname()}",
        "tenant_id": "",
        "authenticated_by": "operating system",
    }
    found = dict(resource)

    def append(**more: object) -> None:
        log.append(record | {"resource": {name: told(value) for name, value in found.items()}} | more)

    append(phase="begun")
    try:
        yield found
    except BaseException as error:
        append(phase="ended", code="FAILED", reason=type(error).__name__)
        raise
    append(phase="ended", code="OK", reason="")
