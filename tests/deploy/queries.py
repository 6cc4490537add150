"""What rules and dashboards ask for: their series, and the labels that they use of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
BOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
Series = Mapping[str, list[dict[str, str]]]


@dataclass(frozen=True)
class Query:
    """PromQL, and what shows or says its result."""

    place: str
    text: str
    templates: str = ""
    """Annotations or legends, which may name labels."""


@cache
def rules() -> list[dict[str, Any]]:
    return [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def recorded() -> dict[str, str]:
    """Expressions by the names of the series that they make."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def queries() -> list[Query]:
    """All that there are."""
    found = [
        Query(rule.get("alert") or rule["record"], rule["expr"], " ".join(rule.get("annotations", {}).values()))
        for rule in rules()
    ]
    for file in BOARDS:
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                text = target["expr"].replace("$__rate_interval", "5m").replace('"$job"', '".*"')
                found.append(Query(f"{file.stem}: {panel['title']}", text, target["legendFormat"]))
        for variable in board["templating"]["list"]:
            if asked := re.fullmatch(r"label_values\((.+), (\w+)\)", str(variable.get("query"))):
                found.append(Query(f"{file.stem}: {variable['name']}", asked[1], f"{{{{{asked[2]}}}}}"))
    return found


def problems(query: Query, exported: Series) -> list[str]:
    """What a query names that nobody exports."""
    tree = promql.parse(query.text)
    found = [problem for selector in _selectors(tree) for problem in _selector_problems(selector, exported)]
    for node in _nodes(tree):
        if isinstance(node, promql.AggregateExpr):
            found += [f"no label {label}" for label in _grouped_by(node) if label not in _labels(node.expr, exported)]
        elif isinstance(node, promql.BinaryExpr):
            sides = _labels(node.lhs, exported) & _labels(node.rhs, exported)
            found += [f"no label {label} to match by" for label in _grouped_by(node) if label not in sides]
    told = re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}", query.templates)
    shown = {one or other for one, other in told} - _labels(tree, exported)
    return found + [f"no label {label} to show" for label in sorted(shown)]


def _selector_problems(selector: Any, exported: Series) -> list[str]:
    name, matchers = selector.name, selector.matchers.matchers
    if name in recorded():
        known = _labels(selector, exported)
        return [f"{name} has no label {one.name}" for one in matchers if one.name not in known]
    if name not in exported:
        return [f"there is no series {name}"]
    fits = any(all(_matches(one, labels) for one in matchers) for labels in exported[name])
    return [] if fits else [f"no series is {selector.prettify()}"]


def _labels(node: Any, exported: Series) -> set[str]:
    """Labels of an expression's result."""
    if isinstance(node, promql.AggregateExpr):
        return set(_grouped_by(node))
    if isinstance(node, promql.VectorSelector):
        if node.name in recorded():
            return _labels(promql.parse(recorded()[node.name]), exported)
        return {label for of_one in exported.get(node.name, ()) for label in of_one}
    if isinstance(node, promql.BinaryExpr):
        of_sides = [_labels(side, exported) for side in (node.lhs, node.rhs)]
        return of_sides[0] or of_sides[1]
    labels = {label for part in _parts(node) for label in _labels(part, exported)}
    return labels - {"le"} if isinstance(node, promql.Call) and node.func.name == "histogram_quantile" else labels


def _grouped_by(node: Any) -> list[str]:
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql.AggregateExpr):
        return list(modifier.labels) if modifier else []
    matching = getattr(modifier, "matching", None)
    return list(matching.labels) if matching else []


def _matches(matcher: Any, labels: Mapping[str, str]) -> bool:
    value, operator = labels.get(matcher.name), str(matcher.op)
    if value is None:
        return False  # a label that is not there is a mistake here, whatever PromQL says
    if operator.endswith("NotEqual"):
        return value != matcher.value
    if operator.endswith("NotRe"):
        return not re.fullmatch(matcher.value, value)
    return bool(re.fullmatch(matcher.value, value)) if operator.endswith("Re") else value == matcher.value


def _selectors(tree: Any) -> Iterator[Any]:
    for node in _nodes(tree):
        if isinstance(node, promql.VectorSelector):
            yield node


def _nodes(node: Any) -> Iterator[Any]:
    """An expression and all of its parts."""
    yield node
    for part in _parts(node):
        yield from _nodes(part)


def _parts(node: Any) -> Iterator[Any]:
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        part = getattr(node, name, None)
        if part is not None and not isinstance(part, (str, int, float)):
            yield part
    yield from getattr(node, "args", None) or ()
