"""Reads unified diffs, git's above all: bytes in, changed files out, in one pass.

A part that can't be read is a problem of its file and of no other. Only a diff beyond its bounds, or bytes that are no
diff at all, are refused, by :class:`DiffError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from conductor_features.changes.changed_file import ChangedFile
from conductor_features.changes.diff_headers import FilePart, git_paths, plain_paths, text_of
from conductor_features.changes.diff_hunks import HUNK, read_hunk

_GIT = b"diff --git "
_COMBINED = (b"diff --cc ", b"diff --combined ")
_SUBMODULE = re.compile(
    rb"Submodule (.+?) (?:contains (?:modified|untracked) content|[0-9a-f]{7,64}\.{2,3}[0-9a-f]{7,64}"
    rb"(?::| \((new submodule|submodule deleted|[^()]*)\):?))$"
)


@dataclass(frozen=True)
class DiffLimits:
    """How much one diff may hold."""

    byte_count: int = 16 << 20
    line_count: int = 500_000
    file_count: int = 20_000


class DiffError(ValueError):
    """The diff as a whole can't be taken."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """``TOO_LARGE`` or ``NOT_A_DIFF``."""


def parse_diff(data: bytes, limits: DiffLimits = DiffLimits()) -> list[ChangedFile]:
    """The changed files of a diff, in its order. An empty diff has none.

    Takes what ``git diff``, ``show``, ``log -p`` and ``format-patch`` print, combined diffs of merges included, and
    what ``diff -u`` does. Raises :class:`DiffError` and nothing else.
    """
    if len(data) > limits.byte_count:
        raise DiffError("TOO_LARGE", f"a diff of {len(data):,} bytes; {limits.byte_count:,} are taken")
    line_count = data.count(b"\n") + 1
    if line_count > limits.line_count:
        raise DiffError("TOO_LARGE", f"a diff of {line_count:,} lines; {limits.line_count:,} are taken")
    parts = _parts(data.split(b"\n"), limits.file_count)
    if not parts and data.strip():
        raise DiffError("NOT_A_DIFF", "neither a file's header nor a hunk is in it")
    return [part.changed_file() for part in parts]


def _parts(lines: list[bytes], most: int) -> list[FilePart]:
    parts: list[FilePart] = []

    def begin(part: FilePart) -> FilePart:
        if len(parts) == most:
            raise DiffError("TOO_LARGE", f"a diff of more than {most:,} files")
        parts.append(part)
        return part

    current: FilePart | None = None
    at, count = 0, len(lines)
    while at < count:
        line = lines[at]
        first = line[:1]
        if first == b"d" and line.startswith(_GIT):
            current = begin(FilePart(*git_paths(line[len(_GIT) :].rstrip(b"\r"))))
        elif first == b"d" and line.startswith(_COMBINED):
            path = text_of(line.split(b" ", 2)[2].rstrip(b"\r"))
            current = begin(FilePart(path, path))
        elif first == b"-" and line.startswith(b"--- ") and at + 1 < count and lines[at + 1].startswith(b"+++ "):
            if current is None or current.has_paths or current.has_hunks:
                current = begin(FilePart(None, None))
            current.set_paths(*plain_paths(line[4:], lines[at + 1][4:], current.stripped))
            at += 1
        elif first == b"@" and current is not None and (header := HUNK.match(line)) is not None:
            at = read_hunk(lines, at + 1, header, current)
            continue
        elif first == b"S" and (submodule := _SUBMODULE.match(line.rstrip(b"\r"))) is not None:
            begin(FilePart.of_submodule(text_of(submodule[1]), submodule[2] or b""))
            current = None
        elif current is not None and not current.has_hunks:
            current.read_header(line.rstrip(b"\r"))
        at += 1
    return parts
