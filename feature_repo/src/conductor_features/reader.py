"""Reads feature rows for the prediction plane: one round trip each, and a reason for every row that is missing.

How the connection is kept, and shared by those who ask at the same time: :mod:`conductor_features.shared_connection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from conductor_features.blocks import RowBlock, RowState
from conductor_features.codec import CorruptValue, decode_block, decode_keyed_block, decode_or_reason, decode_rows
from conductor_features.connections import Replies
from conductor_features.filling import is_filled, is_listed
from conductor_features.keys import REMEMBERED, entity_key
from conductor_features.listing import Identities, ListCommand
from conductor_features.rows import ABSENT, UNFILLED, FeatureRow, Missing
from conductor_features.shared_connection import OnlineStoreUnavailable, SharedConnection
from conductor_features.tables import RowTable, TableLayout
from conductor_features.views import View

__all__ = ["OnlineReader", "OnlineStoreUnavailable"]

_BLOCK_KEYS = 32
"""This many rows and more are decoded together, view by view: fewer take longer that way."""


class OnlineReader(SharedConnection):
    """Reads rows from the online store. Use as ``async with OnlineReader(url) as reader``; one per event loop.

    Starting does not need Redis: it is connected in the background, and again whenever it was lost.
    """

    async def read(self, requests: Sequence[tuple[View, tuple[str, ...]]]) -> list[FeatureRow | Missing]:
        """Rows of the asked (view, entity), in order, in one round trip; a refused value is :class:`Missing`.

        A row that is not there is ABSENT where its view was filled in, else UNFILLED. Says nothing about age: look at
        the rows' event times. Raises :class:`OnlineStoreUnavailable` within the timeout, ValueError for an entity that
        is not of its view. May be cancelled at any moment.
        """
        keys = [_key(view.key, view.entity, entity) for view, entity in requests]
        views = {view.key: view for view, _ in requests}
        positions = [self._store.position_keys(view_key) for view_key in views]
        # The positions before the rows: what is filled by then stays so for as long as the connection does.
        stored = await self._fetch([*chain.from_iterable(positions), *keys])
        if not all(positions):  # a cluster's are known once it is connected, which it is now
            return await self.read(requests)
        absent = {}
        for view_key, names in zip(views, positions, strict=True):
            held, stored = stored[: len(names)], stored[len(names) :]
            absent[view_key] = ABSENT if all(map(is_filled, held)) else UNFILLED
        if len(keys) < _BLOCK_KEYS:
            return [
                self._row(None if value is None else decode_or_reason(key, value, len(view.fields)), absent[view.key])
                for (view, _), key, value in zip(requests, keys, stored, strict=True)
            ]
        rows: list[FeatureRow | Missing] = [ABSENT] * len(keys)
        for view_key, view in views.items():
            places = [at for at, (asked, _) in enumerate(requests) if asked is view or asked.key == view_key]
            found = decode_rows([keys[at] for at in places], [stored[at] for at in places], len(view.fields))
            for at, row in zip(places, found, strict=True):
                rows[at] = row if type(row) is FeatureRow else self._row(row, absent[view_key])
        return rows

    def _row(self, found: FeatureRow | CorruptValue | None, absent: Missing) -> FeatureRow | Missing:
        if isinstance(found, FeatureRow):
            return found
        if found is None:
            self.statistics.absent += 1
            return absent
        self.statistics.corrupt += 1
        return Missing(f"corrupt: {found}")

    async def read_table(self, layout: TableLayout, entities: Sequence[Sequence[tuple[str, ...]]]) -> RowTable:
        """Rows of all of a layout's views for many requests, as one array.

        Args:
            layout: the views.
            entities: of each request, an entity for each view.

        Says what is missing, and raises, as :meth:`read` does.
        """
        views = layout.views
        keys = [
            _key(view.key, view.entity, entity)
            for of_request in entities
            for view, entity in zip(views, of_request, strict=True)
        ]
        positions = [self._store.position_keys(view.key) for view in views]
        # Each once: requests of a batch have entities in common. The positions come first, as in read.
        unique = list(dict.fromkeys(chain(chain.from_iterable(positions), keys)))
        stored = dict(zip(unique, await self._fetch(unique), strict=True))
        if not all(positions):  # as in read
            return await self.read_table(layout, entities)
        absent = [ABSENT if all(is_filled(stored[name]) for name in names) else UNFILLED for names in positions]
        table = layout.table(keys, stored, absent)
        for missing in table.missing.values():
            self.statistics.corrupt += missing.corrupt
            self.statistics.absent += not missing.corrupt
        return table

    async def read_block(
        self, view: View, entities: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of many entities of one view, as arrays.

        Returns values ``[n, fields]`` (NaN where there is no usable row), event times in microseconds ``[n]`` (0 where
        there is none) and ``ok [n]``. Raises as :meth:`read` does.
        """
        keys = [_key(view.key, view.entity, tuple(entity)) for entity in entities]
        stored = await self._fetch(keys)
        values, event_time_us, ok = decode_block(keys, stored, len(view.fields))
        absent = stored.count(None)
        self.statistics.absent += absent
        self.statistics.corrupt += len(keys) - absent - int(ok.sum())
        return values, event_time_us, ok

    async def read_keyed_block(self, view: View, keys: Sequence[bytes], identities: Identities) -> RowBlock:
        """Rows of thousands of entities of one view, whose keys and fingerprints the caller has ready.

        Raises as :meth:`read` does. Such a read takes the connection for itself for a while, and needs a longer time
        limit than others: use a reader of its own for it.
        """
        positions = self._store.position_keys(view.key)
        stored = await self._fetch([*positions, *keys])
        if keys and not positions:  # as in read
            return await self.read_keyed_block(view, keys, identities)
        filled = all(map(is_filled, stored[: len(positions)]))
        stored = stored[len(positions) :]
        values, event_time_us, ok = decode_keyed_block(identities, stored, len(view.fields))
        there = np.fromiter((value is not None for value in stored), np.bool_, len(stored))
        nothing = RowState.ABSENT if filled else RowState.UNFILLED
        state = np.where(ok, RowState.OK, np.where(there, RowState.CORRUPT, nothing)).astype(np.uint8)
        self.statistics.absent += int(len(stored) - there.sum())
        self.statistics.corrupt += int((there & ~ok).sum())
        return RowBlock(values, event_time_us, state)

    async def ask_lists(self, view: View, commands: Sequence[ListCommand]) -> tuple[Replies, bool]:
        """Answers about lists of a view, None about what is no list; and whether the view's lists are whole.

        For :mod:`conductor_features.list_reading`. Raises as :meth:`read` does.
        """
        positions = self._store.position_keys(view.key)
        held, replies = await self._exchanged(positions, commands)
        if not positions:  # as in read
            return await self.ask_lists(view, commands)
        self.statistics.corrupt += replies.count(None)
        return replies, all(map(is_listed, held))

    async def read_values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is stored under keys that are no view's, unchecked; raises :class:`OnlineStoreUnavailable`."""
        return await self._fetch(keys)


@lru_cache(maxsize=REMEMBERED)
def _key(view_key: str, join_keys: tuple[str, ...], entity: tuple[str, ...]) -> bytes:
    if len(entity) != len(join_keys):
        raise ValueError(f"{view_key} is of ({', '.join(join_keys)}), not of {len(entity)} parts")
    return entity_key(view_key, entity)
