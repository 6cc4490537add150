"""Checks of a batch's events of one type against what the tenant's events looked like before.

A check tells a :class:`Finding`. One of severity *error* is a suspicion at first: history.py has to confirm it by
what the same repositories and pipelines had before the batch's own time, and only then is a batch parked. That takes
:data:`LEAST_EVENTS` events on both sides, so a new tenant, a small batch, and a backfill of what lies before the known
history are never parked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from conductor_warehouse.data_quality.fields import SPECS, Field, Kind
from conductor_warehouse.data_quality.profile import Profile
from conductor_warehouse.times import to_microseconds

LEAST_EVENTS = 200
"""Below it, on either side, nothing is said about a batch."""
EXTREME_RATIO = 100.0
"""Between the medians, either way, of a number that is most likely in another unit."""
LARGE_RATIO = 10.0
"""Likewise, of a number that is worth a look."""
COMPLETE, VANISHED = 0.9, 0.05
"""Completeness of a field before, and of one that has collapsed."""
LARGE_DROP = 0.3
"""Drop of completeness that is worth a look."""
IMPLAUSIBLE_SHARE = 0.05
DUPLICATE_SHARE = 0.5
DEAD_LETTER_SHARE, ALARMING_DEAD_LETTER_SHARE = 0.05, 0.5
VARIED_TIMES = 0.1
"""Share of different moments among events of before whose times are told apart."""
_LEAST_PLAUSIBLE_TIME = to_microseconds(datetime(2000, 1, 1, tzinfo=UTC))


class Severity(StrEnum):
    """What a finding does."""

    WARNING = "warning"
    """It is told in the report."""
    ERROR = "error"
    """The batch is parked."""


@dataclass(frozen=True)
class Finding:
    """A check that a batch did not pass."""

    check: str
    severity: Severity
    event_type: str
    """Empty where it is about the batch."""
    field: str
    """Empty where it is about the events."""
    message: str
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def find(event_type: str, batch: Profile, before: Callable[[], Profile]) -> list[Finding]:
    """What is wrong with a batch's events of one type.

    Args:
        event_type: their type.
        batch: their profile.
        before: gets the profile of what the tenant sent before; only asked for batches that are large enough.
    """
    if batch.events < LEAST_EVENTS:
        return []
    known = before()
    findings = [*_plausible(event_type, batch), *_constant_time(event_type, batch, known)]
    for column in SPECS[event_type].fields if event_type in SPECS else ():
        findings += _completeness(event_type, column, batch, known)
        if column.kind is Kind.NUMBER:
            findings += _shift(event_type, column, batch, known)
    return findings


def dead_letter_share(rejected: int, received: int) -> Iterator[Finding]:
    """Of one tenant's events in the batch, those that break their rules."""
    share = rejected / received if received else 0.0
    if received >= LEAST_EVENTS and share >= DEAD_LETTER_SHARE:
        alarming = share >= ALARMING_DEAD_LETTER_SHARE
        yield Finding(
            "dead_letter_share",
            Severity.ERROR if alarming else Severity.WARNING,
            "",
            "",
            f"{rejected} of {received} events can't be taken in",
            {"rejected": rejected, "received": received},
        )


def duplicate_share(event_type: str, duplicates: int, received: int) -> Iterator[Finding]:
    """Events that were there already. Sending them again is everybody's right, so this never is an error."""
    if received >= LEAST_EVENTS and duplicates >= DUPLICATE_SHARE * received:
        figures = {"duplicates": duplicates, "received": received}
        message = f"{duplicates} of {received} events had been stored before, or came twice"
        yield Finding("duplicate_share", Severity.WARNING, event_type, "", message, figures)


def apart(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two triples of quartiles do not overlap."""
    return after[0] > before[2] or after[2] < before[0]


def ratio(before: float, after: float) -> float:
    """By which factor the greater of two medians exceeds the other; what is below a millisecond counts as one."""
    one, other = max(before, 1e-3), max(after, 1e-3)
    return max(one / other, other / one)


def _plausible(event_type: str, batch: Profile) -> Iterator[Finding]:
    if batch.first_time is not None and batch.first_time < _LEAST_PLAUSIBLE_TIME:
        yield Finding("range", Severity.WARNING, event_type, "time", "events tell of a time before the year 2000")
    for column in SPECS[event_type].fields if event_type in SPECS else ():
        one = batch.fields[column.name]
        if one.implausible > IMPLAUSIBLE_SHARE * one.present:
            yield Finding(
                "range",
                Severity.WARNING,
                event_type,
                column.name,
                f"{one.implausible} of {one.present} values are not between {column.lower:g} and {column.upper:g}"
                f" {column.unit}",
                {"implausible": one.implausible, "present": one.present, "maximum": one.maximum},
            )


def _constant_time(event_type: str, batch: Profile, known: Profile) -> Iterator[Finding]:
    if batch.distinct_times > 1:
        return
    varied = known.events >= LEAST_EVENTS and known.distinct_times >= VARIED_TIMES * known.events
    yield Finding(
        "constant_time",
        Severity.ERROR if varied else Severity.WARNING,
        event_type,
        "time",
        f"all {batch.events} events tell of the same moment",
        {"events": batch.events, "distinct_times": batch.distinct_times},
    )


def _completeness(event_type: str, column: Field, batch: Profile, known: Profile) -> Iterator[Finding]:
    one, before = batch.fields[column.name], known.fields.get(column.name)
    if before is None or min(before.total, one.total) < LEAST_EVENTS:
        return
    if before.completeness - one.completeness < LARGE_DROP:
        return
    collapsed = before.completeness >= COMPLETE and one.completeness <= VANISHED
    yield Finding(
        "completeness",
        Severity.ERROR if collapsed and column.essential else Severity.WARNING,
        event_type,
        column.name,
        f"told by {one.completeness:.0%} of the events, by {before.completeness:.0%} before",
        {"completeness": one.completeness, "before": before.completeness, "events": one.total},
    )


def _shift(event_type: str, column: Field, batch: Profile, known: Profile) -> Iterator[Finding]:
    one, before = batch.fields[column.name], known.fields.get(column.name)
    if before is None or min(before.present, one.present) < LEAST_EVENTS:
        return
    after, earlier = one.quartiles(), before.quartiles()
    factor = ratio(earlier[1], after[1])
    if math.isnan(factor) or factor < LARGE_RATIO:
        return
    # Of an essential number a suspicion needs no more: a tenant's pipelines may differ by more than its quartiles say.
    if column.essential or apart(earlier, after):
        yield Finding(
            "distribution",
            Severity.ERROR if column.essential else Severity.WARNING,
            event_type,
            column.name,
            f"median {after[1]:.3g} {column.unit}, {earlier[1]:.3g} {column.unit} before",
            {
                "median": after[1],
                "before": earlier[1],
                "ratio": factor,
                "quartiles": after,
                "quartiles_before": earlier,
            },
        )
