"""Lists of entities for those who answer requests: kept in memory with keys and fingerprints ready."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from conductor_features.keyed import Keyed, keyed
from conductor_features.list_reading import ListState, read_members, read_state, texts
from conductor_features.listing import Owner, listing_key
from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import ABSENT, LOADING, Missing
from conductor_features.views import View

_LOG = logging.getLogger(__name__)
UNAVAILABLE = Missing("unavailable")
"""The online store does not answer, and nothing is held."""


@dataclass(frozen=True, eq=False)
class Listed(Keyed):
    """An owner's members, sorted. The same object for as long as nothing changes."""

    cut: bool
    """There are more; these are the newest."""
    whole: bool
    """False while the online store is being filled: there may be more."""


@dataclass(slots=True)
class _Held:
    listed: Listed
    state: ListState
    """As of before it was read."""
    due: float = 0.0
    """When it is to be looked at again, by the loop's clock."""


class Listings:
    """Lists by view and owner, the least recently used dropped beyond a bound. One per event loop.

    The first request for a list waits for it. Later ones get what is held, and have it read anew beside them.
    """

    def __init__(
        self,
        loader: OnlineReader,
        *,
        refresh_seconds: float = 5.0,
        seen_within: timedelta = timedelta(days=90),
        most_members: int = 50_000,
        byte_count: int = 256 << 20,
    ) -> None:
        """Make one that holds nothing.

        Args:
            loader: reads the lists, which are too big for the others' connection and time limit.
            refresh_seconds: so often, at most, it is looked whether a list has changed.
            seen_within: members whose latest row is that much older than the list's newest are left out.
            most_members: the newest so many of a list are held.
            byte_count: bound of what is held, about.
        """
        self._loader, self._refresh_seconds = loader, refresh_seconds
        self._seen_seconds = seen_within.total_seconds()
        self._most_members, self._byte_count = most_members, byte_count
        self._held: OrderedDict[tuple[str, Owner], _Held] = OrderedDict()
        self._held_bytes = 0
        self._loading: dict[tuple[str, Owner], asyncio.Task[Listed | Missing]] = {}

    async def get(self, view: View, owner: Owner, timeout_seconds: float) -> Listed | Missing:
        """An owner's members, or why there are none: ABSENT, LOADING, UNFILLED, UNAVAILABLE or corrupt.

        Waits at most for ``timeout_seconds``, and only where nothing is held. May be cancelled at any moment. Raises
        ValueError for an owner that is none of the view's, and nothing else.
        """
        listing_key(view, owner)  # or it raises
        held = self._held.get((view.key, owner))
        if held is not None:
            self._held.move_to_end((view.key, owner))
            if asyncio.get_running_loop().time() >= held.due:
                self._load(view, owner)
            return held.listed
        task = self._load(view, owner)
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
        if not done:
            return LOADING
        return UNAVAILABLE if task.cancelled() else task.result()

    async def settle(self) -> None:
        """Wait for what is being read."""
        await asyncio.gather(*self._loading.values())

    async def close(self) -> None:
        """Give up what is being read."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    def _load(self, view: View, owner: Owner) -> asyncio.Task[Listed | Missing]:
        of = (view.key, owner)
        task = self._loading.get(of)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._bring(view, owner))
            self._loading[of] = task
            task.add_done_callback(lambda _: self._loading.pop(of, None))
        return task

    async def _bring(self, view: View, owner: Owner) -> Listed | Missing:
        """What is held from now on, or why nothing is."""
        of = view.key, owner
        found = await self._read(view, owner)
        if isinstance(found, Missing):
            if found is ABSENT:
                self._drop(of)
            if of not in self._held:
                return found
            found = self._held[of]
        found.due = asyncio.get_running_loop().time() + self._refresh_seconds
        self._hold(of, found)
        return found.listed

    async def _read(self, view: View, owner: Owner) -> _Held | Missing:
        held = self._held.get((view.key, owner))
        try:
            state = await read_state(self._loader, view, owner)
            if isinstance(state, Missing):
                return self._told(view, state)
            if held is not None and held.state == state:
                return held
            # Of the list's own time: a repository that rests still has its tests. A row of the future moves nothing.
            since = min(state.newest, time.time()) - self._seen_seconds
            [members], whole = await read_members(self._loader, view, [owner], self._most_members + 1, since)
        except OnlineStoreUnavailable as error:
            _LOG.warning("a list of %s was not read: %s", view.key, error)
            return UNAVAILABLE
        if isinstance(members, Missing):  # what was there a moment ago is gone
            return self._told(view, members)
        state = state._replace(whole=state.whole and whole)
        known = held.listed if held is not None else None
        listed = await asyncio.to_thread(_listed, view, owner, members, state.whole, self._most_members, known)
        return _Held(listed, state)

    def _told(self, view: View, missing: Missing) -> Missing:
        if missing.corrupt:
            _LOG.warning("a list of %s is not used: %s", view.key, missing.reason)
        return missing

    def _hold(self, of: tuple[str, Owner], held: _Held) -> None:
        self._drop(of)
        self._held[of] = held
        self._held_bytes += held.listed.byte_count
        while len(self._held) > 1 and self._held_bytes > self._byte_count:
            self._drop(next(iter(self._held)))

    def _drop(self, of: tuple[str, Owner]) -> None:
        held = self._held.pop(of, None)
        if held is not None:
            self._held_bytes -= held.listed.byte_count


async def read_lists(
    reader: OnlineReader, view: View, owners: Sequence[Owner], limit_each: int = 1_000, since: float = -math.inf
) -> list[list[str] | Missing]:
    """The newest members of owners' lists in one round trip, remembering nothing; see ``read_members``."""
    lists, _ = await read_members(reader, view, owners, limit_each, since)
    return [found if isinstance(found, Missing) else texts(found) for found in lists]


def _listed(view: View, owner: Owner, newest: Sequence[bytes], whole: bool, most: int, held: Listed | None) -> Listed:
    cut = len(newest) > most
    names = texts(newest[:most])
    if held is not None and not whole:
        # The store lost its data and is being filled: what was there a moment ago still is.
        names = list(dict.fromkeys([*names, *held.members]))
        cut, names = held.cut or len(names) > most, names[:most]
    if held is not None and (cut, whole) == (held.cut, held.whole) and held.index.keys() == set(names):
        return held
    found = keyed(view, owner, sorted(names), held)
    return Listed(found.members, found.index, found.keys, found.identities, cut=cut, whole=whole)
