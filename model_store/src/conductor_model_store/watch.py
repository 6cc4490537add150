"""Where every channel points, followed cheaply: keys are looked at, pointers are read when somebody asks for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from conductor_model_store.changes import ChangeJournal, number_of
from conductor_model_store.pointer_files import PointerFiles
from conductor_model_store.records import Pointer
from conductor_model_store.scope import MODELS, ModelScope, parse_key
from conductor_storage import Objects

Place = tuple[ModelScope, str]
"""A scope and one of its channels."""

_LISTING_SHARE = 20.0
"""Listings take no more than one part in so many of the time, however long one takes."""


class PointerWatch:
    """Follows all channels of a store. Safe to use from several threads at once.

    A poll costs one small read while nothing changes, two more and one for each change when something does. Everything
    is listed at first, when the journal does not tell what changed, and once in a while: after ``rescan_seconds``, or
    twenty times what a listing takes if that is longer.
    """

    def __init__(self, objects: Objects, files: PointerFiles, rescan_seconds: float) -> None:
        self._objects, self._files, self._rescan_seconds = objects, files, rescan_seconds
        self._journal = ChangeJournal(objects)
        self._lock = threading.Lock()
        self._generations: dict[Place, int] = {}
        self._resolved: dict[Place, Pointer | None] = {}
        self._mark: bytes | None = None
        self._entry = 0
        self._listed = False
        self._next_listing = 0.0
        self._times_forgotten = 0

    def forget(self) -> None:
        """Begin anew: other keys are trusted now. The next poll tells of everything."""
        with self._lock:
            self._generations, self._resolved, self._listed = {}, {}, False
            self._times_forgotten += 1

    def poll(self) -> list[Place]:
        """The places that moved since the last poll, all of them at first. Raises ModelStoreUnavailable."""
        with self._lock:
            # The mark is read before everything else: a change meanwhile is then seen by the next poll.
            mark = self._journal.mark()
            if not self._listed or time.monotonic() >= self._next_listing:
                return self._list(mark)
            if mark == self._mark:
                return []
            found = self._journal.since(self._entry, number_of(self._mark) or 0, mark)
            if found is None:
                return self._list(mark)
            moved = self._advance(found[1])
            self._entry, self._mark = found[0], mark
            return moved

    def places(self, channel: str | None = None) -> list[Place]:
        """The places that are known, all or of one channel."""
        with self._lock:
            return [place for place in self._generations if channel in (None, place[1])]

    def pointer(self, scope: ModelScope, channel: str) -> Pointer | None:
        """Where a channel pointed at the last poll; None if nowhere. Raises ModelStoreUnavailable.

        A pointer that can't be read is passed over for the one before it, and logged. Each is read once.
        """
        place = (scope, channel)
        with self._lock:
            if place in self._resolved:
                return self._resolved[place]
            generation, times = self._generations.get(place), self._times_forgotten
        if generation is None:
            return None
        pointer = self._files.latest(scope, channel, generation)
        with self._lock:
            if (self._generations.get(place), self._times_forgotten) == (generation, times):
                self._resolved[place] = pointer
        return pointer

    def _list(self, mark: bytes | None) -> list[Place]:
        began = time.monotonic()
        found: dict[Place, int] = {}
        for place, generation in self._listing():
            found[place] = max(generation, found.get(place, 0))
        if self._files.memory is not None:  # somebody may have taken all of a channel away
            there = {scope.channel_directory(channel) for scope, channel in found}
            for pointer in self._files.memory.pointers(besides=there):
                found[pointer.scope, pointer.channel] = pointer.generation
        # What could not be read may have been mended, or signed.
        unread = {place for place, pointer in self._resolved.items() if pointer is None}
        moved = [
            place
            for place, generation in found.items()
            if self._generations.get(place) != generation or place in unread
        ]
        self._resolved = {
            place: pointer
            for place, pointer in self._resolved.items()
            if pointer is not None and pointer.generation == found.get(place)
        }
        took = time.monotonic() - began
        self._generations, self._mark, self._listed = found, mark, True
        self._entry = number_of(mark) or 0
        self._next_listing = began + max(self._rescan_seconds, _LISTING_SHARE * took)
        return moved

    def _listing(self) -> Iterator[tuple[Place, int]]:
        for entry in self._objects.list(MODELS):
            place = self._place(entry.key)
            if place is not None:
                yield place

    def _advance(self, keys: list[str]) -> list[Place]:
        moved = []
        for key in keys:
            found = self._place(key)
            if found is None or found[1] <= self._generations.get(found[0], 0):
                continue
            place, generation = found
            self._generations[place] = generation
            self._resolved.pop(place, None)
            moved.append(place)
        return list(dict.fromkeys(moved))

    def _place(self, key: str) -> tuple[Place, int] | None:
        parsed = parse_key(key)
        if parsed is None or not parsed.channel:
            return None
        scope = self._files.scope_of(key, parsed)
        return None if scope is None else ((scope, parsed.channel), parsed.generation)
