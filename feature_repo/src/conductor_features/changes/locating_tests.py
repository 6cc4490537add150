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


class TestKeys:
    """The keys of all test files, as a tree of words: an id is followed for as long as some key goes on as it does."""

    __test__ = False

    def __init__(self, keys: Mapping[str, Sequence[int]]) -> None:
        self._root = _Node()
        for key, files in keys.items():
            node = self._root
            for word in key.split(" "):
                node = node.next.setdefault(word, _Node())
            node.files = files

    def place_of(self, test_id: str, prefix: str = "") -> TestPlace | None:
        """Where a test is; None where no key fits its id."""
        words = words_of(test_id.removeprefix(prefix))
        for begin in range(len(words)):
            node, place = self._root, None
            for at in range(begin, len(words)):
                following = node.next.get(words[at])
                if following is None:
                    break
                node = following
                if node.files is not None and (begin == 0 or len(node.files) == 1):
                    place = TestPlace(node.files, words[at + 1 :])
            if place is not None:
                return place
        return None


class _Node:
    """Where a key may go on, or end."""

    __slots__ = ("files", "next")

    def __init__(self) -> None:
        self.files: Sequence[int] | None = None
        self.next: dict[str, _Node] = {}
