"""Files of events: one CloudEvent per line (NDJSON), or a JSON array of them; compressed with gzip or not."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from conductor_warehouse.events import MAXIMUM_TEST_EVENT_BYTES

_GZIP_MAGIC = b"\x1f\x8b"
_KEPT_BEYOND = 1
"""A line that is too large is cut one byte beyond what is taken, so that it is still seen to be too large."""


class UnreadableFile(ValueError):
    """The file can't be read as events; the message says why."""


def read_events(source: BinaryIO, progress: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """Each event of a file as JSON; what is no event is handed on as it is, to be rejected with its reason.

    Args:
        source: the file, opened as bytes; need not be seekable.
        progress: told how many bytes of ``source`` were read so far.

    Raises:
        UnreadableFile: a damaged gzip file, or an array that is not JSON.
    """
    counted = _Counted(source, progress)
    buffered = io.BufferedReader(counted, 1 << 16)
    content = cast(BinaryIO, gzip.GzipFile(fileobj=buffered)) if buffered.peek(2)[:2] == _GZIP_MAGIC else buffered
    try:
        yield from _events(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFile(f"damaged gzip file: {error}") from error


def read_event_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """As :func:`read_events`, for a path."""
    with path.open("rb") as source:
        yield from read_events(source, progress)


def _events(content: BinaryIO) -> Iterator[bytes]:
    lines = _lines(content)
    first = next(lines, b"")
    if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        yield from _array(b"".join((first.lstrip(b"\xef\xbb\xbf"), b"\n", content.read())))
        return
    first = first.removeprefix(b"\xef\xbb\xbf")
    if first:
        yield first
    yield from lines


def _array(text: bytes) -> Iterator[bytes]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"not a JSON array of events: {error}") from error
    for item in items:
        yield json.dumps(item, ensure_ascii=True).encode()


def _lines(content: BinaryIO) -> Iterator[bytes]:
    """Lines without their end, the empty ones left out. Never holds more of a line than is taken."""
    limit = MAXIMUM_TEST_EVENT_BYTES + _KEPT_BEYOND
    while line := content.readline(limit + 2):
        if not line.endswith(b"\n") and len(line) > limit:
            yield line[:limit]
            while (rest := content.readline(1 << 16)) and not rest.endswith(b"\n"):
                pass
            continue
        line = line.rstrip(b"\r\n")
        if line.strip():
            yield line


class _Counted(io.RawIOBase):
    """Tells how much was read of a file."""

    def __init__(self, source: BinaryIO, progress: Callable[[int], None]) -> None:
        self._source, self._progress, self._count = source, progress, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self._source.read(len(buffer))
        buffer[: len(content)] = content
        self._count += len(content)
        self._progress(self._count)
        return len(content)
