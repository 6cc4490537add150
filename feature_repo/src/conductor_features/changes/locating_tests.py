"""Which file a test is in, going by its id: test runners name tests by path, module, class or package, in many ways.

An id is taken apart at whatever is no letter, digit, ``_``, ``$`` or ``-``: ``tests/test_cart.py::TestCart::test_a[2]``
is ``tests test_cart py TestCart test_a 2``. A test file's *key* is its path, with or without the extension, or what its
language calls it, taken apart likewise: ``com acme CartTest``, a Go package's folder. The longest key that an id begins
with tells the file; where there is none, the longest that it holds anywhere, if it is of one file only. What follows is
the test's own name, in which a unit of the file may be named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_APART = re.compile(r"[^\w$-]+")
_MOST_WORDS = 64


class TestPlace(NamedTuple):
    """Where a test is."""

    files: Sequence[int]
    """Several where the id fits several."""
    words: Sequence[str]
    """What follows the file in the id, the test's own name among it."""


def words_of(text: str) -> list[str]:
    """A text taken apart."""
    return [word for word in _APART.split(text) if word][:_MOST_WORDS]


def key_of(words: Sequence[str]) -> str:
    """A key as it is stored."""
    return " ".join(words)


def place_of(keys: Mapping[str, Sequence[int]], test_id: str, prefix: str = "") -> TestPlace | None:
    """Where a test is; None where no key fits its id."""
    words = words_of(test_id.removeprefix(prefix))
    for begin in range(len(words)):
        for end in range(len(words), begin, -1):
            files = keys.get(key_of(words[begin:end]))
            if files is not None and (begin == 0 or len(files) == 1):
                return TestPlace(files, words[end:])
    return None
