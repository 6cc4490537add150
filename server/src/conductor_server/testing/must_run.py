"""Which tests somebody says must run."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from conductor_rpc.call import Deadline
from conductor_server.testing.rows import Mask

_TOGETHER = 2048
"""Pairs of an id and a pattern that are matched before others get a turn and somebody looks at the clock."""


def must_run(patterns: Sequence[str], test_ids: Sequence[str], until: Deadline) -> Mask:
    """Of each test whether a pattern means it: an id, or a text in which ``*`` stands for any characters.

    Raises DeadlineTooShort where matching takes longer than ``until``.
    """
    count = len(test_ids)
    ids = frozenset(pattern for pattern in patterns if "*" not in pattern)
    found = np.fromiter(map(ids.__contains__, test_ids), bool, count) if ids else np.zeros(count, bool)
    globs = sorted({pattern for pattern in patterns if "*" in pattern})
    if globs:
        matches = re.compile("|".join(map(_expression, globs)), re.DOTALL).fullmatch
        together = max(_TOGETHER // len(globs), 1)
        for at in range(0, count, together):
            until.require(0)
            some = test_ids[at : at + together]
            found[at : at + len(some)] |= np.fromiter(map(bool, map(matches, some)), bool, len(some))
    return found


def _expression(pattern: str) -> str:
    first, *parts, last = map(re.escape, pattern.split("*"))
    # Atomic groups: the first place where a part stands is as good as any, and no other is ever tried. Without them
    # the time grows with the power of the number of stars.
    return first + "".join(f"(?>.*?{part})" for part in parts if part) + ".*" + last
