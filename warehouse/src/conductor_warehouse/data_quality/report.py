"""The report of a tenant and a period: what came in, beside the period of the same length before it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from psycopg import Connection

from conductor_warehouse.data_quality import histogram, parked_batches, profile
from conductor_warehouse.data_quality.fields import SPECS, Kind
from conductor_warehouse.data_quality.profile import FieldProfile, Profile
from conductor_warehouse.times import to_datetime

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class FieldReport:
    """One field of a type's events. Figures that there is no data for are None."""

    name: str
    unit: str
    completeness: float | None
    completeness_before: float | None
    quantiles: tuple[float | None, ...]
    """The 5th, 25th, 50th, 75th and 95th percentile of a number, to within 9 %."""
    minimum: float | None
    maximum: float | None
    implausible: int
    outliers: int
    stability_index: float | None
    """PSI against the period before: below 0.1 stable, above 0.25 a major change."""
    ks_distance: float | None
    """Kolmogorov–Smirnov distance to the period before, of a number."""


@dataclass(frozen=True)
class TypeReport:
    """Events of one type."""

    event_type: str
    batches: int
    received: int
    stored: int
    duplicates: int
    first_time: datetime | None
    last_time: datetime | None
    median_lateness_seconds: float | None
    """From an event's time to its receipt."""
    fields: tuple[FieldReport, ...] = ()


@dataclass(frozen=True)
class QualityReport:
    """What came in from one tenant in a period, by the day of its receipt in UTC."""

    tenant_id: str
    first_day: date
    last_day: date
    made_time: datetime
    types: tuple[TypeReport, ...] = ()
    dead_letters: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)
    """Checks that batches did not pass, the gravest first."""
    parked: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        content: dict[str, Any] = orjson.loads(orjson.dumps(asdict(self)))
        return content


def make(connection: Connection[Any], tenant_id: str, first_day: date, last_day: date) -> QualityReport:
    """Report what came in from ``first_day`` to ``last_day``, both included.

    Raises:
        ValueError: the period ends before it begins.
    """
    if last_day < first_day:
        raise ValueError(f"the period ends ({last_day}) before it begins ({first_day})")
    days = (last_day - first_day).days + 1
    now = _read(connection, tenant_id, first_day, last_day)
    before = _read(connection, tenant_id, first_day - timedelta(days=days), first_day - timedelta(days=1))
    begin, end = _midnight(first_day), _midnight(last_day + timedelta(days=1))
    row = connection.execute(
        "SELECT count(*) FROM dead_letters WHERE tenant_id = %s AND dead_letter_time >= %s AND dead_letter_time < %s",
        (tenant_id, begin, end),
    ).fetchone()
    findings = connection.execute(
        """
        SELECT received_date, severity, event_type, field, check_name, batch_count, message, figures
        FROM data_findings WHERE tenant_id = %s AND received_date BETWEEN %s AND %s
        ORDER BY severity, received_date DESC, event_type, check_name, field
        """,
        (tenant_id, first_day, last_day),
    ).fetchall()
    names = ("date", "severity", "event_type", "field", "check", "batches", "message", "figures")
    batches = [
        batch
        for batch in parked_batches.find(connection, tenant_id=tenant_id, status=None, limit=1_000)
        if begin <= batch.parked_time < end
    ]
    return QualityReport(
        tenant_id=tenant_id,
        first_day=first_day,
        last_day=last_day,
        made_time=datetime.now(UTC),
        types=tuple(_type(kind, *content, before.get(kind)) for kind, content in sorted(now.items())),
        dead_letters=int(row[0]) if row else 0,
        findings=[dict(zip(names, found, strict=True)) for found in findings],
        parked=[
            {
                "id": batch.parked_batch_id,
                "status": batch.status,
                "events": batch.event_count,
                "parked_time": batch.parked_time,
                "reason": batch.reason,
            }
            for batch in batches
        ],
    )


_Counts = tuple[int, int, int, int]
"""Batches, and events received, stored, and stored before."""


def _read(connection: Connection[Any], tenant_id: str, first: date, last: date) -> dict[str, tuple[_Counts, Profile]]:
    rows = connection.execute(
        """
        SELECT event_type, batch_count, received_count, stored_count, duplicate_count, first_event_time,
          last_event_time, profile::text
        FROM data_profiles WHERE tenant_id = %s AND received_date BETWEEN %s AND %s ORDER BY event_type
        """,
        (tenant_id, first, last),
    ).fetchall()
    days: dict[str, list[tuple[_Counts, Profile]]] = {}
    for kind, batches, received, stored, duplicates, begin, end, content in rows:
        one = profile.from_json(orjson.loads(content), begin, end)
        days.setdefault(kind, []).append(((batches, received, stored, duplicates), one))
    return {
        kind: (_sum(counts for counts, _ in parts), profile.merge(one for _, one in parts))
        for kind, parts in days.items()
    }


def _sum(counts: Iterable[_Counts]) -> _Counts:
    batches, received, stored, duplicates = (sum(column) for column in zip(*counts, strict=True))
    return batches, received, stored, duplicates


def _type(event_type: str, counts: _Counts, seen: Profile, before: tuple[_Counts, Profile] | None) -> TypeReport:
    batches, received, stored, duplicates = counts
    earlier = before[1].fields if before else {}
    spec = SPECS.get(event_type)
    return TypeReport(
        event_type=event_type,
        batches=batches,
        received=received,
        stored=stored,
        duplicates=duplicates,
        first_time=None if seen.first_time is None else to_datetime(seen.first_time),
        last_time=None if seen.last_time is None else to_datetime(seen.last_time),
        median_lateness_seconds=_told(histogram.quantile(seen.lateness, 0.5)),
        fields=tuple(
            _field(column.name, column.unit, column.kind, seen.fields[column.name], earlier.get(column.name))
            for column in (spec.fields if spec else ())
            if column.name in seen.fields
        ),
    )


def _field(name: str, unit: str, kind: Kind, seen: FieldProfile, before: FieldProfile | None) -> FieldReport:
    number = kind is Kind.NUMBER
    stability = distance = math.nan
    if before is not None and number:
        stability = histogram.population_stability_index(before.values, seen.values)
        distance = histogram.kolmogorov_smirnov(before.values, seen.values)
    elif before is not None and kind is Kind.CATEGORY:
        stability = histogram.categories_stability_index(before.categories, seen.categories)
    return FieldReport(
        name=name,
        unit=unit,
        completeness=_told(seen.completeness),
        completeness_before=None if before is None else _told(before.completeness),
        quantiles=tuple(_told(histogram.quantile(seen.values, share)) for share in _QUANTILES) if number else (),
        minimum=_told(seen.minimum),
        maximum=_told(seen.maximum),
        implausible=seen.implausible,
        outliers=histogram.outlier_count(seen.values),
        stability_index=_told(stability),
        ks_distance=_told(distance),
    )


def _told(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
