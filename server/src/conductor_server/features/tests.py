"""The online store as test intelligence sees it: which tests there are, and rows of thousands of them at once."""

from __future__ import annotations

import asyncio

from conductor_features.keyed import Keyed, keyed
from conductor_features.listings import Listings
from conductor_features.rows import Missing
from conductor_features.views import TEST_HISTORY, View
from conductor_rpc.call import Deadline
from conductor_rpc.exceptions import NoPrediction
from conductor_server.features.blocks import Blocks
from conductor_server.features.changed_paths import ChangedPaths
from conductor_server.testing.ports import ChangeColumns
from conductor_server.testing.questions import TestRun
from conductor_server.testing.rows import Rows

_INLINE_TESTS = 128
"""Keys of more tests than this are made beside the event loop."""


class OnlineTests:
    """Reads what is known of tests, as the port says."""

    def __init__(self, blocks: Blocks, listings: Listings) -> None:
        self._blocks, self._listings = blocks, listings
        self._paths = ChangedPaths(blocks)

    async def candidates(self, run: TestRun, until: Deadline) -> Keyed:
        """The tests that a run is about. Raises NoPrediction where it names none and none is known."""
        owner = (run.tenant_id, run.repository)
        patience = max(min(self._blocks.longest_seconds, until.remaining_seconds()), 0.0)
        listed = await self._listings.get(TEST_HISTORY, owner, 0.0 if run.test_ids else patience)
        known = None if isinstance(listed, Missing) else listed
        if not run.test_ids:
            if known is None or not len(known):
                raise NoPrediction
            return known
        if len(run.test_ids) <= _INLINE_TESTS:
            return keyed(TEST_HISTORY, owner, run.test_ids, known)
        return await asyncio.to_thread(keyed, TEST_HISTORY, owner, run.test_ids, known)

    async def rows(self, view: View, run: TestRun, tests: Keyed, until: Deadline) -> Rows:
        """Rows of a view of tests, one for each."""
        if view is not TEST_HISTORY:  # whose keys are ready
            tests = await asyncio.to_thread(keyed, view, (run.tenant_id, run.repository), tests.members)
        return await self._blocks.rows(view, tests.keys, tests.identities, until)

    async def change_columns(self, run: TestRun, tests: Keyed, until: Deadline) -> ChangeColumns:
        """The request columns of each test."""
        return await self._paths.columns(run, tests, until)
