"""Which pointers moved lately: a watcher of ten thousand channels reads a file or two instead of listing them all.

Layout::

    changed                      the mark: "<number of a change> <something new each time>"
    changes/<number, 20 digits>  key of the pointer that was created

Both are hints. A change that is lost (its author died, or wrote no entry, as before 0.2) is found by the next listing.
"""

from __future__ import annotations

import logging
import re
import uuid

from conductor_model_store.errors import ModelStoreError
from conductor_storage import Objects

_MARK = "changed"
_FOLDER = "changes"
_KEPT = 1000
"""Entries that are kept. Whoever is further behind lists."""
_MOST_ATTEMPTS = 1000
_ENTRY = re.compile(r"[0-9]{20}")

_log = logging.getLogger(__name__)


class ChangeJournal:
    """Entries numbered from 1 without gaps, each created if it is absent, then told by the mark."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def append(self, pointer_key: str) -> None:
        """Tell of a pointer that was created. Failing is logged, not raised: the pointer is in force all the same."""
        try:
            number = self._create(pointer_key)
            self._objects.put(_MARK, f"{number} {uuid.uuid4().hex}".encode())
            if number > _KEPT:
                self._objects.delete(_key(number - _KEPT))
        except ModelStoreError as error:
            _log.warning("created %s, but could not tell watchers, who see it at their next listing: %s",
                         pointer_key, error)  # fmt: skip

    def mark(self) -> bytes | None:
        """What is different after every change; one small read. Raises ModelStoreUnavailable."""
        return self._objects.get(_MARK)

    def since(self, entry: int, before: int, mark: bytes | None) -> tuple[int, list[str]] | None:
        """Keys of the pointers that were created after an entry, and the last entry's number.

        None where that can't be told: then list. Raises ModelStoreUnavailable.

        Args:
            entry: the last entry that is known.
            before: what the mark told when it was read last.
            mark: what it is now.
        """
        told = number_of(mark)
        keys: list[str] = []
        last = entry
        # Entries may be ahead of the mark: it is set after them, by the slower of two authors last.
        while (content := self._objects.get(_key(last + 1))) is not None:
            keys.append(content.decode(errors="replace"))
            last += 1
        return (last, keys) if told is not None and before < told <= last else None

    def _create(self, pointer_key: str) -> int:
        number = number_of(self._objects.get(_MARK))
        if number is None:  # there is none yet, or its author knew of no journal
            number = max((int(name) for name in self._names()), default=0)
        for _ in range(_MOST_ATTEMPTS):
            number += 1
            if self._objects.put_if_absent(_key(number), pointer_key.encode()):
                return number
        raise ModelStoreError(f"no number below {number} is free in {_FOLDER}/")

    def _names(self) -> list[str]:
        names = (entry.key.rpartition("/")[2] for entry in self._objects.list(_FOLDER))
        return [name for name in names if _ENTRY.fullmatch(name)]


def number_of(mark: bytes | None) -> int | None:
    """The number of the change that a mark tells of; None where it tells none."""
    first, _, rest = (mark or b"").partition(b" ")
    return int(first) if rest and first.isdigit() else None


def _key(number: int) -> str:
    return f"{_FOLDER}/{number:020d}"
