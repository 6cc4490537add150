"""How far the tests of a run are from its change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_features.changes.distances import LocatedTests
from conductor_features.changes.graph_cache import ImpactGraphs
from conductor_features.changes.impact_graph import Impact as CodeImpact
from conductor_features.changes.impact_graph import ImpactGraph, impact_of
from conductor_features.reader import OnlineStoreUnavailable
from conductor_features.rows import ABSENT, LOADING, Missing
from conductor_server.testing.answers import Impact, ImpactWay
from conductor_server.testing.questions import ChangeTold, TestRun

_WITHOUT = {ABSENT: Impact.NO_GRAPH, LOADING: Impact.LOADING}


@dataclass(frozen=True)
class Reach:
    """What is known of how a change reaches tests."""

    known: Impact
    commit_sha: str = ""
    unplaced_paths: Sequence[str] = ()
    distance: NDArray[np.uint8] | None = None
    """Of each test, by name; ``FAR`` where it is not reached. None where nothing is known."""
    _found: tuple[LocatedTests, CodeImpact] | None = None

    def way(self, test_id: str) -> ImpactWay | None:
        """How the change reaches one test."""
        found = self._found[0].way(self._found[1], test_id) if self._found is not None else None
        return ImpactWay(*found) if found is not None else None


class Reaching:
    """Asks the graphs of code."""

    def __init__(self, graphs: ImpactGraphs) -> None:
        self._graphs = graphs

    async def graph(self, run: TestRun) -> ImpactGraph | Missing | None:
        """The graph for a run's change, or why there is none; None where no change is told. Raises nothing."""
        if run.told is ChangeTold.NOTHING:
            return None
        try:
            return await self._graphs.get(run.tenant_id, run.repository)
        except OnlineStoreUnavailable as error:
            return Missing(error.reason)

    def reach(self, run: TestRun, graph: ImpactGraph | Missing | None, test_ids: Sequence[str]) -> Reach:
        """How far each test is: takes a while, and is fit for a thread."""
        if graph is None:
            return Reach(Impact.NOT_ASKED)
        if isinstance(graph, Missing):
            return Reach(_WITHOUT.get(graph, Impact.UNAVAILABLE))
        is_new = run.commit_sha != "" and run.commit_sha == graph.commit
        impact = impact_of(graph, run.files, graph_is_new=is_new)
        tests = self._graphs.tests_of(run.tenant_id, run.repository, graph)
        distance = tests.distances(impact, test_ids).by_name
        return Reach(Impact.GRAPH, graph.commit, impact.unscoped, distance, (tests, impact))
