"""Profiles: what the events of one tenant and type look like. Those of batches add up to days, and days to periods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from conductor_warehouse.data_quality import histogram
from conductor_warehouse.data_quality.fields import SPECS, Field, Kind
from conductor_warehouse.data_quality.histogram import Histogram
from conductor_warehouse.events import Event
from conductor_warehouse.times import to_microseconds

_MICROSECONDS = 1_000_000


@dataclass
class FieldProfile:
    """One field of many events."""

    total: int = 0
    """How many events (or items of them) were looked at."""
    present: int = 0
    """How many of them tell the field."""
    implausible: int = 0
    """Values outside of the field's plausible range."""
    minimum: float = math.inf
    maximum: float = -math.inf
    values: Histogram = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)

    @property
    def completeness(self) -> float:
        """Share of the events that tell the field; NaN without events."""
        return self.present / self.total if self.total else math.nan

    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of a number."""
        lower, median, upper = (histogram.quantile(self.values, share) for share in (0.25, 0.5, 0.75))
        return lower, median, upper


@dataclass
class Profile:
    """Many events of one type."""

    events: int = 0
    distinct_times: int = 0
    """Different moments within each batch, added up."""
    first_time: int | None = None
    last_time: int | None = None
    """Of the moments that the events tell of, in microseconds since 1970."""
    lateness: Histogram = field(default_factory=dict)
    """Seconds from an event's time to its receipt."""
    fields: dict[str, FieldProfile] = field(default_factory=dict)


def of(event_type: str, events: Sequence[Event], received: datetime) -> Profile:
    """The profile of a batch's events of one type."""
    if not events:
        return Profile()
    messages = [event.data for event in events]
    spec = SPECS.get(event_type)
    sent = np.array([to_microseconds(event.time) for event in events], dtype=np.int64)
    times = moments(event_type, events)
    return Profile(
        events=len(events),
        distinct_times=len(np.unique(times)),
        first_time=int(times.min()),
        last_time=int(times.max()),
        lateness=histogram.of((to_microseconds(received) - sent) / _MICROSECONDS),
        fields={column.name: _field(column, column.read(messages)) for column in spec.fields} if spec else {},
    )


def moments(event_type: str, events: Sequence[Event]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The moment that each event tells of, in microseconds since 1970."""
    spec = SPECS.get(event_type)
    if spec is None:
        return np.array([to_microseconds(event.time) for event in events], dtype=np.int64)
    stamps = [spec.time(event.data) for event in events]
    return np.array([stamp.seconds * _MICROSECONDS + stamp.nanos // 1000 for stamp in stamps], dtype=np.int64)


def _field(column: Field, values: list[Any]) -> FieldProfile:
    if column.kind is Kind.NUMBER:
        numbers = np.array(values, dtype=np.float64)
        numbers = numbers[~np.isnan(numbers)]
        found = FieldProfile(total=len(values), present=len(numbers), values=histogram.of(numbers))
        if len(numbers):
            found.minimum, found.maximum = float(numbers.min()), float(numbers.max())
            if found.minimum < column.lower or found.maximum > column.upper:
                found.implausible = int(np.count_nonzero((numbers < column.lower) | (numbers > column.upper)))
        return found
    if column.kind is Kind.CATEGORY:
        categories = {name: values.count(name) for name in set(values)}
        return FieldProfile(len(values), len(values) - categories.get("UNSPECIFIED", 0), categories=categories)
    return FieldProfile(total=len(values), present=sum(values))


def merge(profiles: Iterable[Profile]) -> Profile:
    """The profile of all their events."""
    whole = Profile()
    parts = list(profiles)
    for part in parts:
        whole.events += part.events
        whole.distinct_times += part.distinct_times
        whole.first_time = _extreme(min, whole.first_time, part.first_time)
        whole.last_time = _extreme(max, whole.last_time, part.last_time)
        for name, one in part.fields.items():
            known = whole.fields.setdefault(name, FieldProfile())
            known.total += one.total
            known.present += one.present
            known.implausible += one.implausible
            known.minimum, known.maximum = min(known.minimum, one.minimum), max(known.maximum, one.maximum)
            for category, count in one.categories.items():
                known.categories[category] = known.categories.get(category, 0) + count
    whole.lateness = histogram.merge(part.lateness for part in parts)
    for name, known in whole.fields.items():
        known.values = histogram.merge(part.fields[name].values for part in parts if name in part.fields)
    return whole


def _extreme(choose: Any, one: int | None, other: int | None) -> int | None:
    known = [time for time in (one, other) if time is not None]
    return choose(known) if known else None


def to_json(profile: Profile) -> dict[str, Any]:
    """As it is kept; what says nothing is left out. The first and the last time are columns of their own."""
    fields = {}
    for name, one in profile.fields.items():
        content: dict[str, Any] = {"total": one.total, "present": one.present}
        if one.implausible:
            content["implausible"] = one.implausible
        if one.values:
            content |= {"minimum": one.minimum, "maximum": one.maximum, "histogram": _keys_as_text(one.values)}
        if one.categories:
            content["categories"] = one.categories
        fields[name] = content
    return {
        "events": profile.events,
        "distinct_times": profile.distinct_times,
        "lateness": _keys_as_text(profile.lateness),
        "fields": fields,
    }


def from_json(content: Mapping[str, Any], first: datetime | None, last: datetime | None) -> Profile:
    """The profile that was kept."""
    return Profile(
        events=content["events"],
        distinct_times=content["distinct_times"],
        first_time=None if first is None else to_microseconds(first),
        last_time=None if last is None else to_microseconds(last),
        lateness=_keys_as_numbers(content["lateness"]),
        fields={
            name: FieldProfile(
                total=one["total"],
                present=one["present"],
                implausible=one.get("implausible", 0),
                minimum=one.get("minimum", math.inf),
                maximum=one.get("maximum", -math.inf),
                values=_keys_as_numbers(one.get("histogram", {})),
                categories=one.get("categories", {}),
            )
            for name, one in content["fields"].items()
        },
    )


def _keys_as_text(values: Histogram) -> dict[str, int]:
    return {str(bucket): count for bucket, count in values.items()}


def _keys_as_numbers(values: Mapping[str, int]) -> Histogram:
    return {int(bucket): count for bucket, count in values.items()}
