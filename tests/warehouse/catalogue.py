"""Random events of every type, and the state that they leave behind."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from conductor_features.views import VIEWS
from warehouse.histories import START, completed_event, envelope, latest_rows, queued_event, random_history, stamp

SUBJECT_TABLES = (
    "inbox",
    "tenants",
    "builds",
    "completed_builds",
    "test_runs",
    "test_results",
    "test_quarantines",
    "test_repositories",
    "quality_evaluations",
    "quality_scores",
    "usage_reports",
    "usage_measurements",
    "deployments",
    "incidents",
    "change_requests",
)
TENANTS = ("acme", "globex")


GAPS = (0, 0, 60, 3600, 40_000)
"""Seconds from one event to the next."""


def random_events(seed: int, count: int, tenants: Sequence[str] = TENANTS, gaps: Sequence[float] = GAPS) -> list[bytes]:
    """Events of every type by their time; subjects are told of twice, times tie, runs repeat their tests."""
    chance = random.Random(seed)
    events: list[tuple[datetime, bytes]] = []
    for build in random_history(seed, max(count // 6, 2), tenants):
        events.append((build.queued, queued_event(build)))
        if build.completed is not None:
            events.append((build.completed, completed_event(build)))
    now = START
    for number in range(count - len(events)):
        now += timedelta(seconds=chance.choice(gaps))
        kind, data = _MAKERS[chance.randrange(len(_MAKERS))](chance, number, now)
        events.append((now, envelope(kind, f"e{number}", now, chance.choice(tenants), data)))
    return [event for _, event in sorted(events)]


def _subject(chance: random.Random, number: int) -> str:
    """A new subject mostly, sometimes one that was told of before."""
    return str(chance.randrange(max(number, 1)) if chance.random() < 0.3 else number)


def _tests(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    results = []
    for _ in range(chance.randrange(6)):
        result = {
            "testId": f"t{chance.randrange(4)}",
            "outcome": "TEST_OUTCOME_" + chance.choice(["PASSED", "PASSED", "FAILED", "ERROR", "SKIPPED"]),
        }
        if chance.random() < 0.8:
            result["duration"] = f"{chance.randrange(10_000) / 1000:.3f}s"
        results.append(result)
    return "test.completed", {
        "runId": _subject(chance, number),
        "repository": chance.choice(["shop", "api"]),
        "completedTime": stamp(now),
        "changedPaths": chance.sample(["a.py", "b.py", "c/d.md"], chance.randrange(3)),
        "results": results,
    }


def _quarantine(chance: random.Random, _number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    test = {"repository": chance.choice(["shop", "api"]), "testId": f"t{chance.randrange(4)}"}
    if chance.random() < 0.5:
        return "test.released", {**test, "releasedTime": stamp(now)}
    return "test.quarantined", {**test, "quarantinedTime": stamp(now), "reason": chance.choice(["", "flaky"])}


def _quality(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    data: dict[str, Any] = {
        "evaluationId": _subject(chance, number),
        "repository": chance.choice(["shop", "api"]),
        "branch": "main",
        "evaluatedTime": stamp(now),
        "status": "QUALITY_GATE_STATUS_PASSED",
        "scores": [{"metric": "maintainability", "value": chance.randrange(1000) / 10}],
    }
    if chance.random() < 0.5:
        data |= {"coverageRatio": chance.random(), "issues": {"majorCount": str(chance.randrange(20))}}
    return "quality_gate.evaluated", data


def _usage(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    metrics = ["buildCount", "storedBytes", "userCount", "webhookCount"]
    chosen = chance.sample(metrics, chance.randrange(1, 5))
    return "usage.updated", {"measuredTime": stamp(now), **{name: str(chance.randrange(10**6)) for name in chosen}}


def _deployment(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    return "deployment.completed", {
        "deploymentId": _subject(chance, number),
        "repository": "shop",
        "environment": "production",
        "completedTime": stamp(now),
        "outcome": "DEPLOYMENT_OUTCOME_" + chance.choice(["SUCCESS", "FAILURE"]),
    }


def _incident(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    incident = _subject(chance, number)
    if chance.random() < 0.5:
        return "incident.resolved", {"incidentId": incident, "resolvedTime": stamp(now)}
    severity = "INCIDENT_SEVERITY_" + chance.choice(["HIGH", "LOW"])
    return "incident.opened", {"incidentId": incident, "severity": severity, "openedTime": stamp(now)}


def _change_request(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    return "change_request.merged", {
        "changeRequestId": _subject(chance, number),
        "repository": "shop",
        "mergedTime": stamp(now),
        "change": {"addedLineCount": str(chance.randrange(100))},
        "reviewCount": chance.randrange(5),
    }


def _tenant(chance: random.Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    return "tenant.created", {"displayName": f"Name {chance.randrange(9)}", "createdTime": stamp(now)}


_MAKERS = (
    _tests,
    _tests,
    _tests,
    _quarantine,
    _quality,
    _quality,
    _usage,
    _deployment,
    _incident,
    _change_request,
    _tenant,
)


def state(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """A digest of each table and of each view's latest feature rows, without what tells when rows were written."""
    digests = {}
    for table in SUBJECT_TABLES:
        rows = connection.execute(f"SELECT to_jsonb(t) - 'received_time' FROM {table} AS t".encode()).fetchall()  # noqa: S608
        digests[table] = _digest(sorted(repr(row) for (row,) in rows))
    for view in VIEWS.values():
        digests[view.key] = _digest(sorted(map(repr, latest_rows(connection, view).items())))
    return digests


def _digest(rows: Sequence[str]) -> str:
    return f"{len(rows)} rows {hashlib.sha256(repr(rows).encode()).hexdigest()[:16]}"
