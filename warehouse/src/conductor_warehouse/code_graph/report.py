"""What a change reaches, as people and programs read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conductor_features.changes.changed_file import ChangedFile
from conductor_features.changes.impact_graph import FAR, Impact


def tests_reached(impact: Impact) -> list[dict[str, Any]]:
    """The test files that are reached: first those by name, then those by import only; nearest first."""
    graph = impact.graph
    found: list[dict[str, Any]] = [
        {"test": path, "reached": "new", "distance": 0, "way": [path]} for path in impact.new_tests
    ]
    for file in graph.is_test.nonzero()[0].tolist():
        for reached, kind in ((impact.by_name, "by name"), (impact.by_file, "by import")):
            if reached.distance[file] != FAR:
                way = [graph.name_of(node) for node in reached.way(file)]
                found.append(
                    {"test": graph.paths[file], "reached": kind, "distance": int(reached.distance[file]), "way": way}
                )
                break
    order = {"new": 0, "by name": 1, "by import": 2}
    return sorted(found, key=lambda one: (order[one["reached"]], one["distance"], one["test"]))


def summary(impact: Impact, files: Sequence[ChangedFile], reached: int) -> dict[str, Any]:
    """What the change is, and what the graph can't tell of it."""
    return {
        "changed_files": len(files),
        "added_lines": sum(one.added_line_count for one in files),
        "deleted_lines": sum(one.deleted_line_count for one in files),
        "changed_definitions": list(impact.changed_units),
        "test_files": int(impact.graph.is_test.sum()) + len(impact.new_tests),
        "reached": reached,
        "not_in_the_graph": list(impact.unknown),
        "may_reach_anything": list(impact.unscoped),
        "not_code": list(impact.not_code),
        "could_not_be_read": [f"{one.path or '?'}: {one.problem}" for one in files if one.problem],
    }
