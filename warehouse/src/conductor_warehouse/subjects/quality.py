"""What ``quality_gate.evaluated`` does to ``quality_evaluations`` and ``quality_scores``, and what it touches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection, sql

from conductor.events.v1.quality_pb2 import GateOperator, QualityGateEvaluated, QualityGateStatus
from conductor_features.views import View
from conductor_warehouse import partitions
from conductor_warehouse.events import QUALITY_GATE_EVALUATED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import FLOAT, TEXT, TIME, batch_of, stage
from conductor_warehouse.subjects.upsert import Key, latest, read, upsert, views_of
from conductor_warehouse.times import to_microseconds

EVENT_TYPES = (QUALITY_GATE_EVALUATED,)

_KEYS = {"tenant_id": TEXT, "evaluation_id": TEXT}
_COLUMNS = {
    "repository": TEXT,
    "branch": TEXT,
    "commit_sha": TEXT,
    "build_id": TEXT,
    "evaluated_time": TIME,
    "status": TEXT,
    "conditions": TEXT,
}
_PLACES = {**_KEYS, "repository": TEXT, "branch": TEXT, "evaluated_time": TIME}
_FACTS = {
    "tenant_id": TEXT,
    "evaluated_time": TIME,
    "evaluation_id": TEXT,
    "repository": TEXT,
    "branch": TEXT,
    "metric": TEXT,
    "value": FLOAT,
}
_Fact = tuple[str, datetime, str, str, str, str, float]
_VIEWS = views_of(QUALITY_GATE_EVALUATED)
ISSUE_METRICS = {
    f"{severity}_count": f"{severity}_issue_count" for severity in ("blocker", "critical", "major", "minor", "info")
}
"""Fields of IssueCounts and the metrics that they become."""
COVERAGE_METRIC = "coverage_ratio"


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store evaluations with their scores. Returns what they mean for each view, by its key."""
    evaluations = latest(events, _key)
    if not evaluations:
        return {}
    old = _read(connection, list(evaluations))
    rows = [(event, (*key, *_row(event.data))) for key, event in evaluations.items()]
    written = set(upsert(connection, "quality_evaluations", _KEYS, _COLUMNS, rows))
    old = [fact for fact in old if (fact[0], fact[2]) in written]
    new = [fact for key in sorted(written) for fact in _facts(evaluations[key])]
    _delete(connection, old)
    _insert(connection, new)
    touched = {view.key: Touched() for view in _VIEWS}
    want(touched, events)
    for view in _VIEWS:
        for fact in (*old, *new):
            touched[view.key].change((_entity(view, fact),), to_microseconds(fact[1]))
    return touched


def want(touched: Mapping[str, Touched], events: Iterable[Event]) -> None:
    """An evaluation wants rows of its metrics, as of its time."""
    for view in _VIEWS:
        for event in events:
            for fact in _facts(event):
                touched[view.key].want((_entity(view, fact),), to_microseconds(fact[1]))


def _key(event: Event) -> Key:
    return (event.tenant_id, event.data.evaluation_id)


def _row(data: QualityGateEvaluated) -> tuple[Any, ...]:
    conditions = [
        {
            "metric": condition.metric,
            "operator": GateOperator.Name(condition.operator).removeprefix("GATE_OPERATOR_"),
            "threshold": condition.threshold,
            "value": condition.value if condition.HasField("value") else None,
            "status": _status(condition.status),
        }
        for condition in data.conditions
    ]
    return (
        data.repository,
        data.branch,
        data.commit_sha,
        data.build_id,
        to_datetime(data.evaluated_time),
        _status(data.status),
        json.dumps(conditions),
    )


def _status(status: QualityGateStatus.ValueType) -> str:
    return QualityGateStatus.Name(status).removeprefix("QUALITY_GATE_STATUS_")


def _facts(event: Event) -> Iterator[_Fact]:
    data: QualityGateEvaluated = event.data
    metrics = {score.metric: score.value for score in data.scores}
    if data.HasField("coverage_ratio"):
        metrics[COVERAGE_METRIC] = data.coverage_ratio
    for field, metric in ISSUE_METRICS.items():
        if data.issues.HasField(field):  # type: ignore[arg-type]
            metrics[metric] = float(getattr(data.issues, field))
    time = to_datetime(data.evaluated_time)
    for metric, value in metrics.items():
        yield (event.tenant_id, time, data.evaluation_id, data.repository, data.branch, metric, value)


def _read(connection: Connection[Any], keys: Sequence[Key]) -> list[_Fact]:
    """Scores of evaluations that are there already."""
    evaluations = read(connection, "quality_evaluations", _KEYS, keys, ("repository", "branch", "evaluated_time"))
    if not evaluations:
        return []
    return connection.execute(
        sql.SQL(
            """
            SELECT tenant_id, score.evaluated_time, evaluation_id, repository, branch, metric, value
            FROM {} AS evaluation
            CROSS JOIN LATERAL (
              SELECT evaluated_time, metric, value FROM quality_scores AS score
              WHERE (score.tenant_id, score.repository, score.branch, score.evaluated_time, score.evaluation_id)
                = (evaluation.tenant_id, evaluation.repository, evaluation.branch, evaluation.evaluated_time,
                   evaluation.evaluation_id)
              OFFSET 0
            ) AS score
            """
        ).format(stage(connection, "evaluation_places", batch_of(_PLACES, evaluations))),
        binary=True,
    ).fetchall()


def _delete(connection: Connection[Any], facts: Sequence[_Fact]) -> None:
    if facts:
        connection.execute(
            sql.SQL(
                "DELETE FROM quality_scores AS fact USING {} AS old WHERE"
                " (fact.tenant_id, fact.repository, fact.branch, fact.metric, fact.evaluated_time, fact.evaluation_id)"
                " = (old.tenant_id, old.repository, old.branch, old.metric, old.evaluated_time, old.evaluation_id)"
            ).format(stage(connection, "quality_scores", batch_of(_FACTS, facts)))
        )


def _insert(connection: Connection[Any], facts: Sequence[_Fact]) -> None:
    if facts:
        times = [fact[1] for fact in facts]
        partitions.ensure(connection, "quality_scores", to_microseconds(min(times)), to_microseconds(max(times)))
        names = sql.SQL(", ").join(map(sql.Identifier, _FACTS))
        connection.execute(
            sql.SQL("INSERT INTO quality_scores ({names}) SELECT {names} FROM {staged}").format(
                names=names, staged=stage(connection, "quality_scores", batch_of(_FACTS, facts))
            )
        )


def _entity(view: View, fact: _Fact) -> tuple[str, ...]:
    values: Mapping[str, Any] = dict(zip(_FACTS, fact, strict=True))
    return tuple(values[key] for key in view.entity)
