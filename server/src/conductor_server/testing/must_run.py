"""Which tests somebody says must run."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from conductor_rpc.call import Deadline
from conductor_server.testing.rows import Mask

_TOGETHER = 256
"""Ids in which one pattern is looked for before others get a turn and somebody looks at the clock."""
_BETWEEN = "\0"
"""Stands in no id and in no pattern: the rules of requests refuse it."""
_Glob = tuple[str, ...]
"""What stands before the first ``*``, between two, and behind the last."""


def must_run(patterns: Sequence[str], test_ids: Sequence[str], until: Deadline) -> Mask:
    """Of each test whether a pattern means it: an id, or a text in which ``*`` stands for any characters.

    Raises DeadlineTooShort where matching takes longer than ``until``.
    """
    count = len(test_ids)
    ids = frozenset(pattern for pattern in patterns if "*" not in pattern)
    found = np.fromiter(map(ids.__contains__, test_ids), bool, count) if ids else np.zeros(count, bool)
    globs = {_glob(pattern) for pattern in patterns if "*" in pattern}
    if globs:
        order = sorted(range(count), key=test_ids.__getitem__)
        ordered = _Ordered([test_ids[at] for at in order])
        matching = np.zeros(count, bool)
        for glob in sorted(globs):
            until.require(0)
            begin, end = ordered.beginning_with(glob[0])
            for at in range(begin, end, _TOGETHER):
                until.require(0)
                ordered.mark(matching, glob, at, min(at + _TOGETHER, end))
        found[order] |= matching
    return found


def _glob(pattern: str) -> _Glob:
    first, *parts, last = pattern.split("*")
    return first, *filter(None, parts), last


class _Ordered:
    """Ids in order, as one text: a part of a pattern is looked for in many of them at once, and ids without it are
    never looked at. No pattern takes longer than to read them all."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids, self._text = ids, _BETWEEN.join([*ids, ""])
        self._starts = np.cumsum([0, *(len(one) + 1 for one in ids)]).tolist()

    def beginning_with(self, first: str) -> tuple[int, int]:
        """From where on and up to where ids begin with that."""
        return bisect_left(self._ids, first), bisect_right(self._ids, first, key=lambda one: one[: len(first)])

    def mark(self, matching: Mask, glob: _Glob, begin: int, end: int) -> None:
        """Mark those that match among ids that begin as the pattern does."""
        first, *parts, last = glob
        if not parts:
            matching[begin:end] |= [one.endswith(last, len(first)) for one in self._ids[begin:end]]
            return
        for at in self._with_parts(len(first), parts, last, begin, end):
            matching[at] = True

    def _with_parts(self, skipped: int, parts: Sequence[str], last: str, begin: int, end: int) -> Iterator[int]:
        """Ids that hold the parts one after the other, and end with the last. The first place where a part stands is as
        good as any, and no other is tried."""
        text, starts, stop = self._text, self._starts, self._starts[end]
        at = begin
        while at < end:
            place, behind = starts[at] + skipped, starts[at + 1] - 1
            for part in parts:
                place = text.find(part, place, stop)
                if place < 0:
                    return
                if place > behind:  # so no id before that one holds it
                    at = bisect_right(starts, place, at, end) - 1
                    break
                place += len(part)
            else:
                if text.endswith(last, place, behind):
                    yield at
                at += 1
