"""The online store as test intelligence sees it: which tests there are, and rows of thousands of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from conductor_features.blocks import RowBlock, RowState
from conductor_features.keyed import Keyed, keyed
from conductor_features.keys import entity_key
from conductor_features.listing import Identities, identities_of, member_keys
from conductor_features.listings import Listings, read_lists
from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.request_columns.tests import PathFailures, request_values
from conductor_features.rows import Missing
from conductor_features.views import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY, View
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.exceptions import NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.testing.ports import ChangeColumns
from conductor_server.testing.questions import TestRun
from conductor_server.testing.rows import Rows

_INLINE_TESTS = 128
"""Keys of more tests than this are made beside the event loop."""
_MOST_PATHS = 500
_MOST_PAIRS = 20_000
"""Of a change's paths so many are looked up, and so many pairs of them and tests that failed with them."""

T = TypeVar("T")


class OnlineTests:
    """Reads within the reader's timeout, which is longer than that for single rows."""

    def __init__(self, reader: OnlineReader, listings: Listings, telemetry: Telemetry) -> None:
        """``reader`` is of its own: large reads must not hold up small ones."""
        self._reader, self._listings, self._telemetry = reader, listings, telemetry

    async def candidates(self, run: TestRun, until: Deadline) -> Keyed:
        """As the port says."""
        owner = (run.tenant_id, run.repository)
        patience = min(self._reader.timeout_seconds, until.remaining_seconds())
        listed = await self._listings.get(TEST_HISTORY, owner, 0.0 if run.test_ids else max(patience, 0.0))
        known = None if isinstance(listed, Missing) else listed
        if not run.test_ids:
            if known is None or not len(known):
                raise NoPrediction
            return known
        if len(run.test_ids) <= _INLINE_TESTS:
            return keyed(TEST_HISTORY, owner, run.test_ids, known)
        return await asyncio.to_thread(keyed, TEST_HISTORY, owner, run.test_ids, known)

    async def rows(self, view: View, run: TestRun, tests: Keyed, until: Deadline) -> Rows:
        """As the port says."""
        if view is not TEST_HISTORY:  # whose keys are ready
            tests = await asyncio.to_thread(keyed, view, (run.tenant_id, run.repository), tests.members)
        return await self._rows(view, tests.keys, tests.identities, until)

    async def change_columns(self, run: TestRun, tests: Keyed, until: Deadline) -> ChangeColumns:
        """As the port says."""
        paths = [path for path in dict.fromkeys(file.path for file in run.files) if path]
        changes, failures = await self._of_paths(run, paths[:_MOST_PATHS], tests, until) if paths else (None, None)
        path_values = np.full((len(paths), len(PATH_CHANGES.fields)), np.nan)
        if changes is None or failures is None:
            return ChangeColumns(request_values(tests.index, paths, path_values, [_NO_FAILURES] * len(paths)))
        path_values[: len(changes)] = changes.values
        by_path = [*failures.by_path, *[_NO_FAILURES] * (len(paths) - len(changes))]
        return ChangeColumns(
            request_values(tests.index, paths, path_values, by_path),
            bool(changes.unreadable.any()) or failures.unreadable,
            min((rows.oldest_us for rows in (changes, failures.rows) if rows.oldest_us is not None), default=None),
        )

    async def _of_paths(
        self, run: TestRun, paths: Sequence[str], tests: Keyed, until: Deadline
    ) -> tuple[Rows, _Failures]:
        """What is known of changed paths, and of the tests that failed with them."""
        owner = (run.tenant_id, run.repository)
        keys = [entity_key(PATH_CHANGES.key, (*owner, path)) for path in paths]
        lists = read_lists(self._reader, TEST_PATH_AFFINITY, [(*owner, path) for path in paths], _MOST_PAIRS // len(paths))
        changes, listed = await asyncio.gather(
            self._rows(PATH_CHANGES, keys, identities_of(keys), until), self._read(lists, until)
        )
        changes = changes.known_at(run.moment_us, past_only=run.past_only)
        unreadable = listed is None or any(isinstance(found, Missing) for found in listed)
        members = [
            [] if isinstance(found, Missing) else [test for test in found if test in tests.index]
            for found in listed or [[]] * len(paths)
        ]
        pairs = list(
            chain.from_iterable(
                member_keys(TEST_PATH_AFFINITY, (*owner, path), of_path)
                for path, of_path in zip(paths, members, strict=True)
            )
        )
        rows = await self._rows(TEST_PATH_AFFINITY, pairs, identities_of(pairs), until)
        rows = rows.known_at(run.moment_us, past_only=run.past_only)
        ends = np.cumsum([len(of_path) for of_path in members])
        by_path = [
            PathFailures(np.array([tests.index[test] for test in of_path], np.intp), counts)
            for of_path, counts in zip(members, np.split(rows.field("failure_count"), ends[:-1]), strict=True)
        ]
        return changes, _Failures(by_path, rows, unreadable or bool(rows.unreadable.any()))

    async def _rows(self, view: View, keys: Sequence[bytes], identities: Identities, until: Deadline) -> Rows:
        block = await self._read(self._reader.read_keyed_block(view, keys, identities), until) if keys else None
        return _without(view, len(keys)) if block is None else _of_block(view, block)

    async def _read(self, reading: Coroutine[Any, Any, T], until: Deadline) -> T | None:
        try:
            async with asyncio.timeout(until.remaining_seconds() if until is not NO_DEADLINE else None):
                return await reading
        except (OnlineStoreUnavailable, TimeoutError):
            self._telemetry.count(names.FEATURE_READ_FAILURES, {})
            return None


@dataclass(frozen=True)
class _Failures:
    """Tests that failed with changed paths."""

    by_path: Sequence[PathFailures]
    rows: Rows
    unreadable: bool


_NO_FAILURES = PathFailures(np.empty(0, np.intp), np.empty(0))


def _of_block(view: View, block: RowBlock) -> Rows:
    usable = block.ok
    return Rows(view, block.values, block.event_time_us, usable, ~usable & (block.state != RowState.ABSENT))


def _without(view: View, count: int) -> Rows:
    """Rows none of which could be read."""
    values = np.full((count, len(view.fields)), np.nan)
    return Rows(view, values, np.zeros(count, np.int64), np.zeros(count, bool), np.ones(count, bool))
