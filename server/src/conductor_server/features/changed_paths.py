"""What is known of a change's paths and of the tests that failed with them: the request columns of all tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import chain, compress, repeat

import numpy as np
from numpy.typing import NDArray

from conductor_features.keyed import Keyed
from conductor_features.keys import entity_key
from conductor_features.listing import Identities, Owner, identities_of, member_keys
from conductor_features.request_columns.tests import PathFailures, request_values
from conductor_features.rows import Missing
from conductor_features.views import PATH_CHANGES, TEST_PATH_AFFINITY
from conductor_rpc.call import Deadline
from conductor_server.features.blocks import Blocks
from conductor_server.testing.ports import ChangeColumns
from conductor_server.testing.questions import TestRun
from conductor_server.testing.rows import Array

_MOST_PATHS = 500
_MOST_PAIRS = 20_000
"""Of a change so many paths are looked up, and so many pairs of them and tests that failed with them."""
_INLINE_PAIRS = 128
"""Keys of more than these are made beside the event loop."""
_INLINE_TESTS = 128
_INLINE_PATHS = 32
"""Nor are the columns of more tests, or for more paths, made on it."""
_OF_PATHS = tuple(f"{PATH_CHANGES.key}.{name}" for name in ("change_count", "failed_run_rate_10"))
_OF_PAIRS = (f"{TEST_PATH_AFFINITY.key}.failure_count",)
"""What the columns are made of."""
_NOTHING = PathFailures(np.empty(0, np.intp), np.empty(0))


class ChangedPaths:
    """Reads paths, and pairs of tests and paths."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def columns(self, run: TestRun, tests: Keyed, until: Deadline) -> ChangeColumns:
        """The request columns of each test."""
        paths = [path for path in dict.fromkeys(file.path for file in run.files) if path]
        values = np.full((len(paths), len(PATH_CHANGES.fields)), np.nan)
        failures = [_NOTHING] * len(paths)
        if not paths:
            return ChangeColumns(request_values(tests.index, paths, values, failures, run.repository))
        known = paths[:_MOST_PATHS]
        (values[: len(known)], lost_paths), (failures[: len(known)], lost_pairs) = await asyncio.gather(
            self._changes(run, known, until), self._failures(run, known, tests, until)
        )
        made = partial(request_values, tests.index, paths, values, failures, run.repository)
        few = len(tests) <= _INLINE_TESTS and len(paths) <= _INLINE_PATHS
        unreadable = _OF_PATHS * lost_paths + _OF_PAIRS * lost_pairs
        return ChangeColumns(made() if few else await asyncio.to_thread(made), unreadable)

    async def _changes(self, run: TestRun, paths: Sequence[str], until: Deadline) -> tuple[Array, bool]:
        """Rows of ``path_changes``, and whether some could not be read."""
        keys = [entity_key(PATH_CHANGES.key, (run.tenant_id, run.repository, path)) for path in paths]
        rows = await self._blocks.rows(PATH_CHANGES, keys, identities_of(keys), until)
        rows = rows.known_at(run.moment_us, past_only=run.past_only)
        return rows.values, bool(rows.unreadable.any())

    async def _failures(
        self, run: TestRun, paths: Sequence[str], tests: Keyed, until: Deadline
    ) -> tuple[list[PathFailures], bool]:
        """Tests that failed with each path, and whether some could not be read."""
        owners = [(run.tenant_id, run.repository, path) for path in paths]
        lists = await self._blocks.lists(TEST_PATH_AFFINITY, owners, _MOST_PAIRS // len(paths), until)
        found = [[] if isinstance(one, Missing) else one for one in lists]
        few = sum(map(len, found)) <= _INLINE_PAIRS
        made = _pairs(owners, found, tests) if few else await asyncio.to_thread(_pairs, owners, found, tests)
        places, keys, identities = made
        rows = await self._blocks.rows(TEST_PATH_AFFINITY, keys, identities, until)
        rows = rows.known_at(run.moment_us, past_only=run.past_only, of_any_age=True)
        counts = np.split(rows.field("failure_count"), np.cumsum([len(its) for its in places])[:-1])
        lost = any(isinstance(one, Missing) for one in lists) or bool(rows.unreadable.any())
        return list(map(PathFailures, places, counts)), lost


def _pairs(
    owners: Sequence[Owner], failed: Sequence[Sequence[str]], tests: Keyed
) -> tuple[list[NDArray[np.intp]], Sequence[bytes], Identities]:
    """Where each path's tests stand that are candidates, and the keys of all these pairs, with fingerprints."""
    places = [np.fromiter(map(tests.index.get, one, repeat(-1)), np.intp, len(one)) for one in failed]
    members = [list(compress(one, its >= 0)) for one, its in zip(failed, places, strict=True)]
    keys = list(chain.from_iterable(map(partial(member_keys, TEST_PATH_AFFINITY), owners, members)))
    return [its[its >= 0] for its in places], keys, identities_of(keys)
