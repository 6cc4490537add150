"""Histories of builds, and what their features should be: worked out build by build, without SQL."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from conductor_features.views import BUILD_VIEWS, VIEWS, View

START = datetime(2026, 3, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Moment = tuple[tuple[str, ...], datetime]


@dataclass(frozen=True)
class Build:
    build_id: str
    queued: datetime
    completed: datetime | None
    outcome: str = "SUCCESS"
    duration: float | None = None
    tenant: str = "acme"
    repository: str = "acme/shop"
    pipeline: str = "test"
    branch: str = "main"

    @property
    def passed(self) -> bool:
        return self.completed is not None and self.outcome == "SUCCESS" and bool(self.duration)

    @property
    def failed(self) -> bool:
        return self.outcome in {"FAILURE", "TIMED_OUT"}


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def envelope(kind: str, event_id: str, time: datetime, tenant: str, data: Mapping[str, Any]) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "/ci",
            "type": kind,
            "time": stamp(time),
            "tenantid": tenant,
            "data": data,
        }
    ).encode()


def queued_event(build: Build, event_id: str | None = None, time: datetime | None = None) -> bytes:
    context = {
        "repository": build.repository,
        "pipeline": build.pipeline,
        "branch": build.branch,
        "queuedTime": stamp(build.queued),
        "change": {"addedLineCount": "12", "fileExtensions": [".py"]},
    }
    data = {"buildId": build.build_id, "context": context}
    return envelope("build.queued", event_id or f"q-{build.build_id}", time or build.queued, build.tenant, data)


def completed_event(build: Build, event_id: str | None = None, time: datetime | None = None) -> bytes:
    assert build.completed is not None
    data: dict[str, Any] = {
        "buildId": build.build_id,
        "repository": build.repository,
        "pipeline": build.pipeline,
        "branch": build.branch,
        "queuedTime": stamp(build.queued),
        "completedTime": stamp(build.completed),
        "outcome": f"BUILD_OUTCOME_{build.outcome}",
    }
    if build.duration is not None:
        data["duration"] = f"{build.duration:.6f}s"
    return envelope("build.completed", event_id or f"c-{build.build_id}", time or build.completed, build.tenant, data)


def events_of(builds: Iterable[Build]) -> list[bytes]:
    """The builds' events in the order in which they happened."""
    events = [(build.queued, 0, queued_event(build)) for build in builds]
    events += [(build.completed, 1, completed_event(build)) for build in builds if build.completed is not None]
    return [event for _, _, event in sorted(events)]


def random_history(seed: int, count: int, tenants: Sequence[str] = ("acme", "globex")) -> list[Build]:
    """Builds that overlap, tie, fail, never end, lack their duration or their branch."""
    chance = random.Random(seed)
    builds = []
    now = START
    for number in range(count):
        now += timedelta(seconds=chance.choice([0, 0, 7, 60, 600, 7200]))
        seconds = chance.choice([0.0, 30.25, 61.0, round(chance.lognormvariate(5, 1), 6)])
        outcome = chance.choice(["SUCCESS"] * 5 + ["FAILURE", "TIMED_OUT", "CANCELLED", "OTHER"])
        ended = chance.random() < 0.95
        builds.append(
            Build(
                build_id=f"b{chance.randrange(10**6)}-{number}",
                queued=now,
                completed=now + timedelta(seconds=seconds) if ended else None,
                outcome=outcome,
                duration=seconds if chance.random() < 0.95 else None,
                tenant=chance.choice(tenants),
                repository=chance.choice(["acme/shop", "acme/api"]),
                pipeline=chance.choice(["test", "deploy"]),
                branch=chance.choice(["main", "main", "feature", ""]),
            )
        )
    return builds


def expected_moments(view: View, builds: Iterable[Build]) -> Iterator[Moment]:
    """Every (entity, moment) that the builds' events ask a row for."""
    for build in builds:
        entity = entity_of(view, build)
        if all(entity):
            if view.name == "tenant_load":
                yield entity, build.queued
            if build.completed is not None:
                yield entity, build.completed


def entity_of(view: View, build: Build) -> tuple[str, ...]:
    values = {
        "tenant_id": build.tenant,
        "repository": build.repository,
        "pipeline": build.pipeline,
        "branch": build.branch,
    }
    return tuple(values[key] for key in view.entity)


def expected_row(view: View, moment: Moment, builds: Iterable[Build]) -> dict[str, float | None]:
    """The view's fields as of a moment."""
    entity, at = moment
    own = [build for build in builds if entity_of(view, build) == entity]
    if view.name == "tenant_load":
        hour, hours = timedelta(hours=1), timedelta(hours=6)
        return {
            "queued_count_1h": float(sum(at - hour < b.queued <= at for b in own)),
            "running_count": float(
                sum(at - hours < b.queued <= at and (b.completed is None or b.completed > at) for b in own)
            ),
        }
    ended = sorted((b for b in own if b.completed is not None and b.completed <= at), key=_recency, reverse=True)
    passed = [b for b in ended if b.passed]
    d = [_seconds(b) for b in passed]
    failures = [float(b.failed) for b in ended[:20]]
    last_completed = _epoch(ended[0]) if ended else None
    rows: dict[str, dict[str, float | None]] = {
        "pipeline_builds": {
            "last_duration": d[0] if d else None,
            "mean_duration_7": _mean(d[:7]),
            "median_duration_5": _quantile(d[:5], 0.5),
            "median_duration_7": _quantile(d[:7], 0.5),
            "median_duration_15": _quantile(d[:15], 0.5),
            "median_duration_30": _quantile(d[:30], 0.5),
            "median_duration_500": _quantile(d[:500], 0.5),
            "weighted_mean_duration_50": _weighted(d[:50]),
            "lower_duration_30": _quantile(d[:30], 0.1),
            "upper_duration_30": _quantile(d[:30], 0.9),
            "typical_error_50": _error_quantile(d, lambda _: 0.5),
            "relative_error_50": _error_quantile(d, lambda n: min(1.0, 0.9 * (1 + 1 / n))),
            "passed_count": float(len(d[:500])),
            "failure_rate_20": _mean(failures),
            "last_failed": failures[0] if failures else None,
            "last_completed_time": last_completed,
        },
        "branch_builds": {
            "last_duration": d[0] if d else None,
            "median_duration_7": _quantile(d[:7], 0.5),
            "passed_count": float(len(d[:50])),
            "last_passed_time": _epoch(passed[0]) if passed else None,
        },
        "repository_builds": {
            "median_duration_30": _quantile(d[:30], 0.5),
            "lower_duration_30": _quantile(d[:30], 0.05),
            "upper_duration_30": _quantile(d[:30], 0.95),
            "passed_count": float(len(d[:30])),
            "failure_rate_20": _mean(failures),
        },
    }
    return rows[view.name]


ROUNDED = {"weighted_mean_duration_50", "typical_error_50", "relative_error_50"}
"""Fields with exponentials and logarithms, whose last bit depends on who computes them."""


def same(field: str, one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-12) if field in ROUNDED else one == other


def latest_rows(connection: psycopg.Connection[Any], view: View) -> dict[Moment, dict[str, float | None]]:
    """The latest row of the view's log for each (entity, moment)."""
    statement = sql.SQL(
        "SELECT DISTINCT ON ({keys}, event_timestamp) {keys}, event_timestamp, {fields} FROM {log}"
        " ORDER BY {keys}, event_timestamp, created DESC"
    ).format(
        keys=sql.SQL(", ").join(map(sql.Identifier, view.entity)),
        fields=sql.SQL(", ").join(map(sql.Identifier, view.field_names)),
        log=sql.Identifier(view.log_table),
    )
    size = len(view.entity)
    return {
        (tuple(row[:size]), row[size].astimezone(UTC)): dict(zip(view.field_names, row[size + 1 :], strict=True))
        for row in connection.execute(statement)
    }


def assert_log_is_right(connection: psycopg.Connection[Any], builds: Sequence[Build]) -> int:
    """Each view's log holds what the builds say, at every moment that an event asks for; returns how many rows."""
    count = 0
    for view in BUILD_VIEWS:
        found = latest_rows(connection, view)
        moments = set(expected_moments(view, builds))
        assert set(found) == moments, view.key
        for moment in moments:
            expected = expected_row(view, moment, builds)
            assert set(expected) == set(view.field_names), view.key
            wrong = {
                name: (found[moment][name], value)
                for name, value in expected.items()
                if not same(name, found[moment][name], value)
            }
            assert not wrong, (view.key, moment, wrong)
        count += len(moments)
    return count


def dump(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """Contents of the tables and latest feature rows, without what tells when they were written."""
    columns = {
        "inbox": "tenant_id, source, event_id, event_type, event_time, data",
        "builds": "*",
        "completed_builds": "*",
        "dead_letters": "tenant_id, digest, event_id, event_source, reason",
    }
    tables: dict[str, list[Any]] = {
        table: connection.execute(f"SELECT {names} FROM {table} ORDER BY 1, 2, 3").fetchall()  # noqa: S608
        for table, names in columns.items()
    }
    for view in BUILD_VIEWS:
        tables[view.key] = sorted((key, tuple(row.items())) for key, row in latest_rows(connection, view).items())
    return tables


def clear(connection: psycopg.Connection[Any]) -> None:
    names = ["inbox", "builds", "completed_builds", "dead_letters", *(view.log_table for view in VIEWS.values())]
    names += ["data_profiles", "data_findings", "parked_batches"]
    connection.execute(
        sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(sql.SQL(", ").join(map(sql.Identifier, names)))
    )


def _recency(build: Build) -> tuple[datetime, str]:
    assert build.completed is not None
    return (build.completed, build.build_id)


def _seconds(build: Build) -> float:
    whole, nanos = divmod(round((build.duration or 0.0) * 10**6) * 1000, 10**9)
    return whole + nanos / 1e9


def _epoch(build: Build) -> float:
    assert build.completed is not None
    return ((build.completed - EPOCH) // timedelta(microseconds=1)) / 1_000_000


def _mean(values: Sequence[float]) -> float | None:
    total = 0.0
    for value in values:
        total += value
    return total / len(values) if values else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(values) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (place - math.floor(place)) * (high - low)


def _weighted(values: Sequence[float]) -> float | None:
    weights = [0.8**k for k in range(len(values))]
    total = sum(weight * math.log(value) for weight, value in zip(weights, values, strict=True))
    return math.exp(total / sum(weights)) if values else None


def _error_quantile(durations: Sequence[float], share: Callable[[int], float]) -> float | None:
    errors = []
    for index, duration in enumerate(durations[:50]):
        before = durations[index + 1 : index + 8]
        if len(before) >= 3:
            median = _quantile(before, 0.5)
            assert median is not None
            errors.append(abs(math.log(duration / median)))
    return _quantile(errors, share(len(errors))) if len(errors) >= 10 else None
