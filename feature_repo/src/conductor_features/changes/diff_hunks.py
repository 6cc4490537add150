"""Hunks: which lines came and went. A combined diff's hunk tells of several parents at once."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conductor_features.changes.diff_headers import FilePart

HUNK = re.compile(rb"(@@+) ((?:-\d{1,9}(?:,\d{1,9})? )++)\+(\d{1,9})(?:,(\d{1,9}))? (@@+)")
_NO_NEWLINE = b"\\"


def read_hunk(lines: list[bytes], at: int, header: re.Match[bytes], part: FilePart) -> int:
    """Read the hunk whose first line is ``lines[at]`` into the file's part; returns where it ends.

    It is as long as its header says: a removed ``-- x`` looks like the next file's header otherwise. Where the lines
    say something else, the hunk ends there, with a problem.
    """
    olds = [_span(text) for text in header[2].split()]
    if len(header[1]) != len(olds) + 1 or header[5] != header[1]:
        part.problem = "a hunk's header can't be read"
        return at
    part.has_hunks = True
    new = _span(b"+" + header[3] + (b"," + header[4] if header[4] is not None else b""))
    end = (_read_plain if len(olds) == 1 else _read_combined)(lines, at, olds, new, part)
    return end + 1 if end < len(lines) and lines[end][:1] == _NO_NEWLINE else end


def _span(text: bytes) -> tuple[int, int]:
    """The first line and how many; of none, git tells the line before."""
    start, _, count = text[1:].partition(b",")
    size = int(count) if count else 1
    return int(start) + (size == 0), size


def _read_plain(lines: list[bytes], at: int, olds: list[tuple[int, int]], new: tuple[int, int], part: FilePart) -> int:
    (old_line, old_left), (new_line, new_left) = olds[0], new
    old_begin, new_begin = old_line, new_line  # of the run of changed lines that is being read
    count = len(lines)
    while (old_left > 0 or new_left > 0) and at < count:
        line = lines[at]
        kind = line[:1]
        if kind == b"+" and new_left > 0:
            new_line += 1
            new_left -= 1
        elif kind == b"-" and old_left > 0:
            old_line += 1
            old_left -= 1
        elif kind in (b" ", b"", b"\r") and old_left > 0 and new_left > 0 and (kind or at + 1 < count):
            if old_line > old_begin or new_line > new_begin:
                _add(part, old_begin, old_line, new_begin, new_line)
            old_line += 1
            new_line += 1
            old_left -= 1
            new_left -= 1
            old_begin, new_begin = old_line, new_line
        elif kind != _NO_NEWLINE:
            break
        at += 1
    if old_line > old_begin or new_line > new_begin:
        _add(part, old_begin, old_line, new_begin, new_line)
    if old_left > 0 or new_left > 0:
        part.problem = "a hunk is not as long as its header says"
    return at


def _add(part: FilePart, old_begin: int, old_end: int, new_begin: int, new_end: int) -> None:
    part.deleted += old_end - old_begin
    part.added += new_end - new_begin
    part.add_change(old_begin, old_end, new_begin, new_end)


def _read_combined(
    lines: list[bytes], at: int, olds: list[tuple[int, int]], new: tuple[int, int], part: FilePart
) -> int:
    """A column for each parent: "-" is a line of that parent which the merge dropped, "+" one that it lacked."""
    width, left = len(olds), _LinesLeft([size for _, size in olds])
    old_line, (new_line, new_left) = olds[0][0], new
    old_begin, new_begin = old_line, new_line
    count = len(lines)
    while (new_left > 0 or left) and at < count:
        marks = lines[at][:width]
        first = marks[:1]
        if first == _NO_NEWLINE:
            at += 1
            continue
        if marks.strip(b" +-\r") or not (marks or at + 1 < count):
            break
        dropped = b"-" in marks
        if not (left.take_from(_columns(marks, b"-")) if dropped else new_left and left.take(_columns(marks, b"+"))):
            break
        changed = marks.strip(b" \r") != b""
        if not changed and (old_line > old_begin or new_line > new_begin):
            part.add_change(old_begin, old_line, new_begin, new_line)
        old_line += first == b"-" if dropped else first != b"+"
        new_line += not dropped
        new_left -= not dropped
        part.added += b"+" in marks
        part.deleted += dropped
        if not changed:
            old_begin, new_begin = old_line, new_line
        at += 1
    if old_line > old_begin or new_line > new_begin:
        part.add_change(old_begin, old_line, new_begin, new_line)
    if new_left > 0 or left:
        part.problem = "a hunk is not as long as its header says"
    return at


def _columns(marks: bytes, mark: bytes) -> list[int]:
    return [at for at, found in enumerate(marks) if found == mark[0]]


class _LinesLeft:
    """How many lines are to come of each parent. True while there are any.

    A line may have fewer marks than there are parents, its blanks having been stripped, so that a few bytes speak of a
    thousand parents: it costs as much as it has marks. What nearly all of them lose is counted once.
    """

    def __init__(self, sizes: list[int]) -> None:
        self._ends, self._taken = sizes, 0
        """A parent has its end, less what was taken of all."""
        self._at_end = Counter(sizes)
        """How many parents have which end."""

    def __bool__(self) -> bool:
        return self._at_end[self._taken] < len(self._ends)

    def take(self, lacking: list[int]) -> bool:
        """A line of all parents but these; False, and nothing is taken, where one of them has none left."""
        if self._at_end[self._taken] > sum(self._ends[parent] == self._taken for parent in lacking):
            return False
        self._taken += 1
        for parent in lacking:
            self._move(parent, 1)
        return True

    def take_from(self, holding: list[int]) -> bool:
        """A line of these parents; False, and nothing is taken, where one of them has none left."""
        if any(self._ends[parent] == self._taken for parent in holding):
            return False
        for parent in holding:
            self._move(parent, -1)
        return True

    def _move(self, parent: int, count: int) -> None:
        self._at_end[self._ends[parent]] -= 1
        self._ends[parent] += count
        self._at_end[self._ends[parent]] += 1
