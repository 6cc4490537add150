"""How far tests are from a change, by their ids: thousands at once, each id looked for once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conductor_features.changes.impact_graph import FAR, Impact, ImpactGraph
from conductor_features.changes.locating_tests import TestKeys

_PLACES = 4
"""Files or units that one id may mean, at most; of more, the first."""
_REMEMBERED, _REMEMBERED_CHARACTERS = 200_000, 10_000_000
"""Ids of tests, and what they hold in all."""
_NodesAndFiles = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True)
class TestDistances:
    """In the order of the ids; :data:`FAR` where a test is not reached, or not in the graph."""

    by_name: NDArray[np.uint8]
    by_import: NDArray[np.uint8]
    known: NDArray[np.bool_]
    """Whether the graph has the test."""


class LocatedTests:
    """Finds the tests of one graph. Remembers what it found; for several threads."""

    def __init__(self, graph: ImpactGraph) -> None:
        self._graph, self._lock = graph, threading.Lock()
        self._nowhere = len(graph.paths) + len(graph.unit_file)
        self._rows: dict[str, int] = {}
        self._characters = 0
        self._nodes = np.empty((0, _PLACES), np.int32)
        self._files = np.empty((0, _PLACES), np.int32)
        self._latest: tuple[Sequence[str], _NodesAndFiles] | None = None

    def distances(self, impact: Impact, test_ids: Sequence[str]) -> TestDistances:
        """How far each test is from the change. A list that is asked for again must not have been changed."""
        nodes, files = self._found(test_ids)
        by_name = np.append(impact.by_name.distance, np.uint8(FAR))
        by_file = np.append(impact.by_file.distance, np.uint8(FAR))
        return TestDistances(
            by_name=by_name[nodes].min(axis=1),
            by_import=by_file[np.minimum(files, len(self._graph.paths))].min(axis=1),
            known=files[:, 0] != self._nowhere,
        )

    def way(self, impact: Impact, test_id: str) -> tuple[int, list[str]] | None:
        """How far a test is, by name or else by import, and the way to it for people; None where it is not reached."""
        [nodes], [files] = self._found([test_id])
        for reached, places in (impact.by_name, nodes), (impact.by_file, files):
            near = min(places[places != self._nowhere].tolist(), key=reached.distance.__getitem__, default=None)
            if near is not None and reached.distance[near] != FAR:
                return int(reached.distance[near]), [self._graph.name_of(node) for node in reached.way(near)]
        return None

    def _found(self, test_ids: Sequence[str]) -> _NodesAndFiles:
        """Nodes and files of each test, shape (tests, places)."""
        with self._lock:
            if self._latest is not None and self._latest[0] is test_ids:
                return self._latest[1]
            if not set(test_ids) <= self._rows.keys():
                self._remember([one for one in dict.fromkeys(test_ids) if one not in self._rows], test_ids)
            rows = np.fromiter(map(self._rows.__getitem__, test_ids), np.int64, len(test_ids))
            found = self._nodes[rows], self._files[rows]
            if len(test_ids) > 1:
                self._latest = test_ids, found
            return found

    def _remember(self, new: Sequence[str], asked: Sequence[str]) -> None:
        characters = self._characters + sum(map(len, new))
        if len(self._rows) + len(new) > _REMEMBERED or characters > _REMEMBERED_CHARACTERS:
            new = list(dict.fromkeys(asked))
            characters = sum(map(len, new))
            self._rows.clear()
            self._nodes, self._files = self._nodes[:0], self._files[:0]
        self._characters = characters
        nodes = np.full((len(new), _PLACES), self._nowhere, np.int32)
        files = nodes.copy()
        for row, test_id in enumerate(new):
            for at, (file, node) in enumerate(self._places(test_id)[:_PLACES]):
                files[row, at], nodes[row, at] = file, node
        self._rows.update(zip(new, range(len(self._nodes), len(self._nodes) + len(new)), strict=True))
        self._nodes, self._files = np.concatenate([self._nodes, nodes]), np.concatenate([self._files, files])

    def _places(self, test_id: str) -> list[tuple[int, int]]:
        """Files that an id may mean, each with a node in it: of several, those with a unit of the test's name."""
        place = self._keys.place_of(test_id, self._graph.test_id_prefix)
        if place is None:
            return []
        found = [
            (file, node)
            for file in place.files
            for node in [next((self._units[file, word] for word in place.words if (file, word) in self._units), -1)]
        ]
        return [one for one in found if one[1] >= 0] or [(file, file) for file, _ in found]

    @cached_property
    def _keys(self) -> TestKeys:
        return TestKeys(self._graph.test_keys)

    @cached_property
    def _units(self) -> dict[tuple[int, str], int]:
        """Nodes of the tests' own units, by file and name; one that stands for several comes last, and counts."""
        graph = self._graph
        first = len(graph.paths)
        return {
            (file, graph.unit_names[index]): first + index
            for index, file in enumerate(graph.unit_file.tolist())
            if graph.is_test[file]
        }
