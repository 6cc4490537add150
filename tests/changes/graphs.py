"""Graphs of repositories that are written down in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import dedent

from conductor_features.changes.changed_file import Change, ChangedFile, LineRange
from conductor_features.changes.impact_graph import FAR, Impact, ImpactGraph, impact_of
from conductor_features.changes.paths import language_of
from conductor_warehouse.code_graph.languages import READERS, read_facts
from conductor_warehouse.code_graph.linking import Linked, link


def linked(files: Mapping[str, str]) -> Linked:
    """The graph of files by their paths."""
    data = {path: dedent(text).encode() for path, text in files.items()}
    facts = {path: read_facts(path, text) for path, text in data.items() if language_of(path) in READERS}
    return link(facts, {path: text for path, text in data.items() if path not in facts})


def change_of(files: Mapping[str, str], path: str, line: str) -> ChangedFile:
    """A change of the first line that begins with ``line``."""
    lines = dedent(files[path]).splitlines()
    [number, *_] = [number for number, text in enumerate(lines, 1) if text.lstrip().startswith(line)]
    place: tuple[LineRange, ...] = ((number, number),)
    return ChangedFile(path, path, Change.MODIFIED, old_ranges=place, new_ranges=place)


def reached(files: Mapping[str, str], path: str, line: str) -> tuple[dict[str, int], set[str]]:
    """The test files that a change of a line reaches by name, with distances; and those by import."""
    graph = linked(files).graph
    impact = impact_of(graph, [change_of(files, path, line)])
    return by_name(impact), by_import(graph, impact)


def by_name(impact: Impact) -> dict[str, int]:
    """Test files that are reached by name, with their distances."""
    distances = impact.by_name.distance
    return {path: int(distances[at]) for at, path in _tests(impact.graph) if distances[at] != FAR}


def by_import(graph: ImpactGraph, impact: Impact) -> set[str]:
    """Test files that are reached by imports."""
    return {path for at, path in _tests(graph) if impact.by_file.distance[at] != FAR}


def _tests(graph: ImpactGraph) -> Sequence[tuple[int, str]]:
    return [(at, path) for at, path in enumerate(graph.paths) if graph.is_test[at]]
