"""Graphs for those who answer requests: kept in memory, loaded beside the requests."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

from conductor_features.changes.distances import LocatedTests
from conductor_features.changes.graph_codec import CorruptGraph, decode_graph, graph_keys, snapshot_of
from conductor_features.changes.impact_graph import ImpactGraph
from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import ABSENT, LOADING, Missing

_LOG = logging.getLogger(__name__)

_Repository = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Held:
    snapshot_id: int
    graph: ImpactGraph | Missing
    tests: LocatedTests | None
    size: int


class ImpactGraphs:
    """Graphs by tenant and repository, the least recently used dropped beyond a bound. One per event loop.

    A request costs a read of 32 bytes. One that finds a newer graph announced is answered by the one before, and has
    the newer loaded; what it got says the commit that it is of.
    """

    def __init__(self, reader: OnlineReader, loader: OnlineReader, byte_count: int = 256 << 20) -> None:
        """``loader`` reads the graphs, which are too big for the others' connection and time limit."""
        self._reader, self._loader, self._byte_count = reader, loader, byte_count
        self._held: OrderedDict[_Repository, _Held] = OrderedDict()
        self._loading: dict[_Repository, asyncio.Task[None]] = {}

    async def get(self, tenant_id: str, repository: str) -> ImpactGraph | Missing:
        """A repository's graph, or why there is none. Raises OnlineStoreUnavailable as the reader does."""
        of = (tenant_id, repository)
        pointer, _ = graph_keys(of, 0)
        [value] = await self._reader.read_values([pointer])
        if value is None:
            self._held.pop(of, None)
            return ABSENT
        snapshot_id = snapshot_of(pointer, value)
        if snapshot_id is None:
            return Missing("corrupt: what tells the snapshot")
        held = self._held.get(of)
        if held is None or held.snapshot_id != snapshot_id:
            self._load(of, snapshot_id)
            return LOADING if held is None else held.graph
        self._held.move_to_end(of)
        return held.graph

    def tests_of(self, tenant_id: str, repository: str, graph: ImpactGraph) -> LocatedTests:
        """The tests of a graph that ``get`` gave; what is found of them is remembered for as long as the graph is."""
        held = self._held.get((tenant_id, repository))
        if held is not None and held.graph is graph and held.tests is not None:
            return held.tests
        return LocatedTests(graph)

    async def settle(self) -> None:
        """Wait for what is being loaded."""
        await asyncio.gather(*self._loading.values())

    async def close(self) -> None:
        """Give up what is being loaded."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    def _load(self, of: _Repository, snapshot_id: int) -> None:
        if of not in self._loading:
            task = asyncio.get_running_loop().create_task(self._bring(of, snapshot_id))
            self._loading[of] = task
            task.add_done_callback(lambda _: self._loading.pop(of, None))

    async def _bring(self, of: _Repository, snapshot_id: int) -> None:
        pointer, place = graph_keys(of, snapshot_id)
        try:
            [value] = await self._loader.read_values([place])
        except OnlineStoreUnavailable as error:
            _LOG.warning("the graph of %s was not loaded: %s", of[1], error)
            return
        if value is None:  # replaced meanwhile: the next request learns by what
            return
        try:
            graph: ImpactGraph | Missing = await asyncio.to_thread(decode_graph, pointer, value)
        except CorruptGraph as error:
            graph = Missing(f"corrupt: {error}")
            _LOG.warning("the graph of %s is not used: %s", of[1], error)
        tests = LocatedTests(graph) if isinstance(graph, ImpactGraph) else None
        self._held[of] = _Held(snapshot_id, graph, tests, _MEMORY_FACTOR * len(value))
        self._held.move_to_end(of)
        while len(self._held) > 1 and sum(one.size for one in self._held.values()) > self._byte_count:
            self._held.popitem(last=False)


_MEMORY_FACTOR = 8
"""Bytes in memory for each stored one, about: arrays compress well, and texts become objects."""
