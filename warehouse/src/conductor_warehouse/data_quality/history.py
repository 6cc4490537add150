"""Confirms a suspicion against a batch by what the same subjects had *before the batch's own time*.

A tenant's mix of pipelines changes, and history arrives in any order. So each value is divided by the median of its
own stratum (a pipeline, a test), and only what lies before the batch in event time is looked at: a backfill of what is
older than all that is known finds nothing there, and is left alone. This reads the warehouse's tables, and only when
a cheap check (checks.py) has found something.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from conductor_warehouse import events as catalogue
from conductor_warehouse.data_quality.checks import (
    COMPLETE,
    EXTREME_RATIO,
    LEAST_EVENTS,
    VANISHED,
    VARIED_TIMES,
    Finding,
    apart,
)
from conductor_warehouse.data_quality.profile import moments
from conductor_warehouse.events import Event, to_seconds
from conductor_warehouse.times import to_datetime

_MAXIMUM_STRATA = 50
_LEAST_OF_STRATUM = 5
"""Known values that a stratum's median is taken from, at least."""
_MAXIMUM_RESULTS = 20_000
_FLOOR = 1e-3
"""Seconds: what is shorter counts as this."""

_Stratum = tuple[str, str]
_Told = Iterator[tuple[_Stratum, float | None]]
_Floats = NDArray[np.float64]

_BUILDS: LiteralString = """
SELECT stratum.number::integer - 1, known.completed_time, known.duration
FROM unnest(%(first)s::text[], %(second)s::text[]) WITH ORDINALITY AS stratum(first, second, number)
CROSS JOIN LATERAL (
  SELECT completed_time, duration FROM completed_builds
  WHERE tenant_id = %(tenant)s AND repository = stratum.first AND pipeline = stratum.second
    AND completed_time < %(before)s
  ORDER BY completed_time DESC LIMIT 400) AS known
"""
_RUNS: LiteralString = """
SELECT stratum.number::integer - 1, known.completed_time, NULL::double precision
FROM unnest(%(first)s::text[], %(second)s::text[]) WITH ORDINALITY AS stratum(first, second, number)
CROSS JOIN LATERAL (
  SELECT completed_time FROM test_runs
  WHERE tenant_id = %(tenant)s AND repository = stratum.first AND completed_time < %(before)s
  ORDER BY completed_time DESC LIMIT 400) AS known
"""
_RESULTS: LiteralString = """
SELECT stratum.number::integer - 1, known.completed_time, known.duration
FROM unnest(%(first)s::text[], %(second)s::text[]) WITH ORDINALITY AS stratum(first, second, number)
CROSS JOIN LATERAL (
  SELECT completed_time, duration FROM test_results
  WHERE tenant_id = %(tenant)s AND repository = stratum.first AND test_id = stratum.second
    AND completed_time < %(before)s
  ORDER BY completed_time DESC LIMIT 40) AS known
"""


@dataclass(frozen=True)
class _History:
    """Where a field's earlier values are, and how events tell them."""

    statement: LiteralString
    """Gives (position of the stratum, moment, value), the latest before a moment."""
    told: Callable[[Sequence[Event]], _Told]


def _durations(events: Sequence[Event]) -> _Told:
    for event in events:
        data = event.data
        yield (data.repository, data.pipeline), to_seconds(data.duration) if data.HasField("duration") else None


def _queued(events: Sequence[Event]) -> _Told:
    for event in events:
        yield (event.data.context.repository, event.data.context.pipeline), None


def _runs(events: Sequence[Event]) -> _Told:
    for event in events:
        yield (event.data.repository, ""), None


def _results(events: Sequence[Event]) -> _Told:
    step = max(1, math.ceil(sum(len(event.data.results) for event in events) / _MAXIMUM_RESULTS))
    for event in events:
        for result in event.data.results[::step]:
            seconds = to_seconds(result.duration) if result.HasField("duration") else None
            yield (event.data.repository, result.test_id), seconds


_HISTORIES: Mapping[tuple[str, str], _History] = {
    (catalogue.BUILD_COMPLETED, "duration"): _History(_BUILDS, _durations),
    (catalogue.BUILD_COMPLETED, "time"): _History(_BUILDS, _durations),
    (catalogue.BUILD_QUEUED, "time"): _History(_BUILDS, _queued),
    (catalogue.TEST_COMPLETED, "result_duration"): _History(_RESULTS, _results),
    (catalogue.TEST_COMPLETED, "time"): _History(_RUNS, _runs),
}
"""By event type and field: what is not here is never a reason to park."""


def confirm(connection: Connection[Any], finding: Finding, events: Sequence[Event]) -> Finding | None:
    """The finding with the figures that confirm it; None where history does not.

    Args:
        connection: within the batch's transaction, before anything of it is stored.
        finding: a suspicion, of severity error.
        events: those of the batch that the finding is about, of one tenant; none of them stored before.
    """
    if finding.check == "dead_letter_share":
        return finding if _continues(connection, events) else None
    history = _HISTORIES.get((finding.event_type, finding.field))
    if history is None:
        return None
    told = list(history.told(events))
    strata = [stratum for stratum, _ in Counter(stratum for stratum, _ in told).most_common(_MAXIMUM_STRATA)]
    rows = connection.execute(
        history.statement,
        {
            "first": [first for first, _ in strata],
            "second": [second for _, second in strata],
            "tenant": events[0].tenant_id,
            "before": _begin(finding.event_type, events),
        },
    ).fetchall()
    if len(rows) < LEAST_EVENTS:
        return None
    if finding.check == "constant_time":
        distinct = len({moment for _, moment, _ in rows})
        if distinct < VARIED_TIMES * len(rows):
            return None
        return replace(finding, figures={**finding.figures, "known": len(rows), "known_distinct_times": distinct})
    known: dict[_Stratum, list[float | None]] = {}
    for position, _, value in rows:
        known.setdefault(strata[position], []).append(value)
    known = {stratum: values for stratum, values in known.items() if len(values) >= _LEAST_OF_STRATUM}
    own = [(stratum, value) for stratum, value in told if stratum in known]
    return _CONFIRM[finding.check](finding, own, known)


def _begin(event_type: str, events: Sequence[Event]) -> datetime:
    """When the batch begins in event time: its lower quartile, so that a few stray events don't matter."""
    return to_datetime(int(np.quantile(moments(event_type, events), 0.25, method="lower")))


def _continues(connection: Connection[Any], events: Sequence[Event]) -> bool:
    """Whether enough is known from before the batch's time."""
    times = sorted(event.time for event in events)
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM inbox WHERE tenant_id = %s AND event_time < %s LIMIT %s) AS known",
        (events[0].tenant_id, times[len(times) // 4], LEAST_EVENTS),
    ).fetchone()
    return row == (LEAST_EVENTS,)


_Own = Sequence[tuple[_Stratum, float | None]]
_Known = Mapping[_Stratum, Sequence[float | None]]


def _vanished(finding: Finding, own: _Own, known: _Known) -> Finding | None:
    before = [value for values in known.values() for value in values]
    if min(len(own), len(before)) < LEAST_EVENTS:
        return None
    share = sum(value is not None for _, value in own) / len(own)
    known_share = sum(value is not None for value in before) / len(before)
    if share > VANISHED or known_share < COMPLETE:
        return None
    return replace(finding, figures={**finding.figures, "known": len(before), "known_completeness": known_share})


def _shifted(finding: Finding, own: _Own, known: _Known) -> Finding | None:
    """Quartiles of the values, each divided by its stratum's median, do not overlap and are far from each other."""
    centres: dict[_Stratum, float] = {}
    before: list[float] = []
    for stratum, values in known.items():
        told = [max(value, _FLOOR) for value in values if value is not None]
        if len(told) >= _LEAST_OF_STRATUM:
            centres[stratum] = float(np.median(told))
            before += [value / centres[stratum] for value in told]
    told_now = ((stratum, value) for stratum, value in own if value is not None and stratum in centres)
    after = [max(value, _FLOOR) / centres[stratum] for stratum, value in told_now]
    if min(len(before), len(after)) < LEAST_EVENTS:
        return None
    one, other = _quartiles(before), _quartiles(after)
    # Relative to their medians: no floor applies.
    factor = max(one[1] / other[1], other[1] / one[1])
    if factor < EXTREME_RATIO or not apart(one, other):
        return None
    way = "longer" if other[1] > one[1] else "shorter"
    return replace(
        finding,
        message=f"{finding.message}; {factor:.3g} times {way} than the same {_SUBJECTS[finding.event_type]} had",
        figures={**finding.figures, "known": len(before), "ratio_by_stratum": factor, "strata": len(centres)},
    )


def _quartiles(values: Sequence[float]) -> list[float]:
    quartiles: list[float] = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return quartiles


_CONFIRM: Mapping[str, Callable[[Finding, _Own, _Known], Finding | None]] = {
    "completeness": _vanished,
    "distribution": _shifted,
}
_SUBJECTS = {catalogue.BUILD_COMPLETED: "pipelines", catalogue.TEST_COMPLETED: "tests"}
