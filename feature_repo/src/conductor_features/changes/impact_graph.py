"""Which tests a change reaches, by what the code imports and names.

Nodes are the files and, of each, its *units*: what stands at its top level and can be named. An edge leads from what
changes to what that may change in turn; it costs 1 from file to file and nothing within one. There are two such graphs:

* of *files*: a file is reached from any file that it imports. It misses little and tells little.
* of *units*: a unit is reached from those that it names. It tells far more, and misses what is named at run time only.

A test's *distance* is the cost of the cheapest way, 0 for a test that was changed itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from conductor_features.changes.changed_file import Change, ChangedFile, Content, LineRange

Integers = NDArray[np.int32]
Numbers = NDArray[np.integer]
FAR = 255
"""Not reached."""
MOST_DISTANCE = 30
"""Ways longer than this are not followed."""


@dataclass(frozen=True)
class Edges:
    """A graph in compressed rows: the edges of node n are ``targets[starts[n]:starts[n + 1]]``."""

    starts: Integers
    targets: Integers

    @classmethod
    def of(cls, count: int, pairs: NDArray[np.int64]) -> Edges:
        """From (from, to) pairs, shape (edges, 2); repeated ones count once."""
        pairs = np.unique(pairs.reshape(-1, 2), axis=0)
        starts = np.searchsorted(pairs[:, 0], np.arange(count + 1)).astype(np.int32)
        return cls(starts, pairs[:, 1].astype(np.int32))

    def of_all(self, nodes: Integers) -> tuple[Integers, Integers]:
        """All edges of some nodes: from, to."""
        sizes = self.starts[nodes + 1] - self.starts[nodes]
        begins = np.repeat(self.starts[nodes] - np.cumsum(sizes) + sizes, sizes)
        return np.repeat(nodes, sizes), self.targets[begins + np.arange(len(begins), dtype=np.int32)]


@dataclass(frozen=True)
class Reached:
    """How far each node is, and where from."""

    distance: NDArray[np.uint8]
    """:data:`FAR` where it is not reached."""
    previous: Integers
    """The node before it on the cheapest way; −1 at the beginning and where it is not reached."""

    def way(self, node: int) -> list[int]:
        """The nodes from the change to ``node``."""
        found = [node]
        while (node := int(self.previous[node])) >= 0:
            found.append(node)
        return found[::-1]


@dataclass(frozen=True)
class ImpactGraph:
    """The graph of one repository at one commit."""

    paths: Sequence[str]
    """Of the files, in order; file n is node n."""
    is_test: NDArray[np.bool_]
    """Shape (files,)."""
    unit_file: Integers
    """The file of each unit; unit n is node ``len(paths) + n``."""
    unit_lines: Integers
    """First and last line of each unit, shape (units, 2); (0, −1) of a name that is only handed on."""
    unit_names: Sequence[str]
    importers: Edges
    """From each file to those that import it."""
    within: Edges
    """Between a file's nodes: cost 0."""
    across: Edges
    """Between nodes of different files: cost 1."""
    test_keys: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """What tests are called by, see :mod:`conductor_features.changes.locating_tests`: the files of each."""
    test_id_prefix: str = ""
    """What stands before all test ids of this repository."""
    commit: str = ""

    @cached_property
    def file_index(self) -> Mapping[str, int]:
        """Position of each path."""
        return {path: index for index, path in enumerate(self.paths)}

    @cached_property
    def units_of(self) -> Edges:
        """From each file to its units' nodes."""
        nodes = np.arange(len(self.unit_file), dtype=np.int64) + len(self.paths)
        return Edges.of(len(self.paths), np.column_stack([self.unit_file.astype(np.int64), nodes]))

    def file_of(self, node: int) -> int:
        """The file that a node is, or is in."""
        return node if node < len(self.paths) else int(self.unit_file[node - len(self.paths)])

    def name_of(self, node: int) -> str:
        """A node for people: ``path`` or ``path:unit``."""
        path = self.paths[self.file_of(node)]
        return path if node < len(self.paths) else f"{path}:{self.unit_names[node - len(self.paths)]}"

    def units_at(self, file: int, ranges: Sequence[LineRange]) -> Integers:
        """Nodes of the units that have changed lines in them; all of the file's nodes where other lines changed."""
        units = self.units_of.targets[self.units_of.starts[file] : self.units_of.starts[file + 1]]
        everything = np.append(units, np.int32(file))
        if not ranges:
            return everything
        lines = self.unit_lines[units - len(self.paths)]
        changed = np.array(ranges, dtype=np.int64).reshape(-1, 2)
        if not _some_span(lines, changed[:, 0], changed[:, 1]).all():  # outside of every unit
            return everything
        return units[_some_span(changed, lines[:, 1], lines[:, 0])]

    def reach_files(self, files: Iterable[int]) -> Reached:
        """How far each file is from some, by imports."""
        none = Edges(np.zeros(len(self.paths) + 1, np.int32), np.empty(0, np.int32))
        return _reach(len(self.paths), np.array(sorted(set(files)), np.int32), none, self.importers)

    def reach_nodes(self, nodes: Integers) -> Reached:
        """How far each node is from some, by names."""
        return _reach(len(self.paths) + len(self.unit_file), nodes, self.within, self.across)


def _some_span(spans: Numbers, begun_by: Numbers, not_ended_by: Numbers) -> NDArray[np.bool_]:
    """Of each pair of lines whether some span, shape (spans, 2), begins at the one or before and ends at the other or
    after. Pairs are not held against each span by itself: a diff may tell of a hundred thousand."""
    ordered = spans[np.argsort(spans[:, 0])]
    furthest = np.maximum.accumulate(np.append(np.iinfo(np.int64).min, ordered[:, 1]))
    return furthest[np.searchsorted(ordered[:, 0], begun_by, side="right")] >= not_ended_by


def _reach(count: int, seeds: Integers, free: Edges, dear: Edges) -> Reached:
    """Breadth first, a distance at a time: first all that costs nothing more, then one step."""
    distance, previous = np.full(count, FAR, np.uint8), np.full(count, -1, np.int32)
    front = np.unique(seeds)
    for step in range(MOST_DISTANCE + 1):
        distance[front] = step
        level = [front]
        while len(front):
            front = _enter(distance, previous, *free.of_all(front))
            distance[front] = step
            level.append(front)
        front = _enter(distance, previous, *dear.of_all(np.concatenate(level)))
        if not len(front):
            break
    return Reached(distance, previous)


def _enter(distance: NDArray[np.uint8], previous: Integers, origins: Integers, targets: Integers) -> Integers:
    """The targets that were not reached before, each with one origin."""
    fresh = distance[targets] == FAR
    found, first = np.unique(targets[fresh], return_index=True)
    previous[found] = origins[fresh][first]
    return found


@dataclass(frozen=True)
class Impact:
    """What a change reaches."""

    graph: ImpactGraph
    by_file: Reached
    by_name: Reached
    changed_units: Sequence[str]
    """``path:unit`` of each unit that was changed."""
    new_tests: Sequence[str]
    """Paths of tests that the change brings, which the graph can't hold."""
    unknown: Sequence[str]
    """Changed code that the graph does not have."""
    unscoped: Sequence[str]
    """Changed files that say how all is built: the graph can't tell what they reach."""
    not_code: Sequence[str]
    """Changed files that nothing imports: documents, data."""


def impact_of(graph: ImpactGraph, files: Sequence[ChangedFile], *, graph_is_new: bool = False) -> Impact:
    """What a change reaches.

    Args:
        graph: of the commit before the change, or of one near it.
        files: the change.
        graph_is_new: the graph is of the commit after the change.
    """
    index = graph.file_index
    touched: dict[int, list[Sequence[LineRange]]] = {}
    lists: dict[str, list[str]] = {name: [] for name in ("new_tests", "unknown", "unscoped", "not_code")}
    for one in files:
        if one.mode_only or not one.path:
            continue
        path = one.new_path if graph_is_new else one.old_path
        if path is not None and path in index:
            touched.setdefault(index[path], []).append(_ranges(one, graph_is_new))
        elif one.facts.build:
            lists["unscoped"].append(one.path)
        elif one.change is not Change.DELETED and one.facts.test:
            lists["new_tests"].append(one.path)
        else:
            lists["unknown" if one.facts.language else "not_code"].append(one.path)
    # A file may be told of thousands of times: its units are looked at once.
    nodes = np.concatenate(
        [np.empty(0, np.int32), *(graph.units_at(file, _together(told)) for file, told in touched.items())]
    )
    changed = [graph.name_of(node) for node in nodes.tolist() if node >= len(graph.paths)]
    return Impact(graph, graph.reach_files(touched), graph.reach_nodes(nodes), changed, **lists)


def _ranges(file: ChangedFile, new: bool) -> Sequence[LineRange]:
    """The changed lines; none where all of it counts as changed."""
    whole = file.change is not Change.MODIFIED or file.content is not Content.TEXT or file.problem
    return () if whole else file.new_ranges if new else file.old_ranges


def _together(told: Sequence[Sequence[LineRange]]) -> Sequence[LineRange]:
    """The lines of all that is told of a file; none where some of it counts as a whole."""
    return list(chain.from_iterable(told)) if all(told) else ()
