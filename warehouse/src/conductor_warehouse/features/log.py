"""Computes the rows that events ask for and appends them to the feature logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import Connection, sql

from conductor_features.views import View
from conductor_warehouse import partitions, staging
from conductor_warehouse.features.definition import Definition, Rows, Seeds
from conductor_warehouse.features.moments import LONG_AGO, Entity, Moment, Moments, Touched, to_microseconds
from conductor_warehouse.features.registry import DEFINITIONS
from conductor_warehouse.staging import stage

CHANNEL = "conductor_feature_log"
"""PostgreSQL notifies it when rows were appended."""
_COMPUTED_TOGETHER = 4096
"""Moments computed together: bounds the memory of one computation."""


def append(connection: Connection[Any], touched: Mapping[str, Touched], created: datetime) -> int:
    """Append the rows that the touched moments ask for, view by view (by its key); returns how many rows.

    A late event also changes rows that were written before it came: those that now differ are appended anew, with a
    later ``created``. A row that would repeat the latest one of its entity and moment is left out, so events in any
    order, in any batches, end in the same latest rows.

    Must run in the transaction that stores the events, with the tenants locked.
    """
    # The tables are read a few rows at a time by index, which the planner can't know while they are still small, or
    # were when it made the plan that it keeps.
    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off")
    count = sum(_append(connection, DEFINITIONS[key], what, created) for key, what in sorted(touched.items()))
    if count:
        connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    return count


def compute(connection: Connection[Any], view: View, moments: Sequence[Moment]) -> list[tuple[float | None, ...]]:
    """Rows of ``view`` for each (entity, moment), from the facts and not from the log; None is missing."""
    columns = Moments.of(moments)
    with connection.transaction():
        rows = dict(zip(columns.pairs(), _compute(connection, DEFINITIONS[view.key], columns, None), strict=True))
    return [tuple(None if np.isnan(value) else float(value) for value in rows[moment]) for moment in moments]


@dataclass(frozen=True)
class _Log:
    """What the log tells of the touched entities."""

    known: Mapping[Moment, tuple[datetime, tuple[float | None, ...]]]
    """When the latest row of each moment became known, and its values: of the moments from an entity's first on."""
    latest: Mapping[Entity, tuple[datetime, tuple[float | None, ...]]]
    """For a seeded definition, the moment and the values of each entity's latest row before its first moment."""


def _append(connection: Connection[Any], definition: Definition, what: Touched, created: datetime) -> int:
    log = _read(connection, definition, what)
    moments = Moments.of([*what.moments, *_changed(log, what, definition)])
    if not len(moments):
        return 0
    rows = _compute(connection, definition, moments, _seeds(definition.view, moments, log.latest))
    became_known = np.full(len(moments), to_microseconds(created))
    if log.known:
        differs = np.ones(len(moments), bool)
        for index, moment in enumerate(moments.pairs()):
            known = log.known.get(moment)
            if known is not None:
                differs[index] = not np.array_equal(rows[index], _values(known[1]), equal_nan=True)
                became_known[index] = max(became_known[index], to_microseconds(known[0]) + 1)
        moments, rows, became_known = moments.take(differs), rows[differs], became_known[differs]
    if len(moments):
        _write(connection, definition.view, moments, rows, became_known)
    return len(moments)


def _changed(log: _Log, what: Touched, definition: Definition) -> list[Moment]:
    """Moments that have rows, which a change may make others."""
    found = []
    for entity, at in log.known:
        change = what.changed.get(entity)
        if change and change[0] <= at and (definition.reach is None or at <= change[1] + definition.reach):
            found.append((entity, at))
    return found


def _read(connection: Connection[Any], definition: Definition, what: Touched) -> _Log:
    first: dict[Entity, datetime] = {entity: change[0] for entity, change in what.changed.items()}
    for entity, at in what.moments:
        known_first = first.get(entity)
        if known_first is None or at < known_first:
            first[entity] = at
    entities = sorted(first)
    if not entities:
        return _Log({}, {})
    view, latest = definition.view, {}
    if definition.seeded:
        # Nearly every entity's latest row is of an earlier moment: then one row is all there is to read.
        found = _rows(connection, view, entities, first, _LATEST)
        latest = {entity: (at, values) for entity, at, _, values in found if at < first[entity]}
        entities = [entity for entity, at, _, _ in found if at >= first[entity]]
        latest |= {entity: (at, values) for entity, at, _, values in _rows(connection, view, entities, first, _BEFORE)}
    known: dict[Moment, tuple[datetime, tuple[float | None, ...]]] = {}
    for entity, at, became_known, values in _rows(connection, view, entities, first, _SINCE):
        if (entity, at) not in known or known[entity, at][0] < became_known:
            known[entity, at] = (became_known, values)
    return _Log(known, latest)


_SINCE = sql.SQL("AND event_timestamp >= entity.first_time")
_BEFORE = sql.SQL("AND event_timestamp < entity.first_time ORDER BY event_timestamp DESC, created DESC LIMIT 1")
_LATEST = sql.SQL("ORDER BY event_timestamp DESC, created DESC LIMIT 1")


def _rows(
    connection: Connection[Any],
    view: View,
    entities: Sequence[Entity],
    first: Mapping[Entity, datetime],
    which: sql.SQL,
) -> list[tuple[Entity, datetime, datetime, tuple[float | None, ...]]]:
    """Rows of the log by entity: moment, when it became known, values."""
    if not entities:
        return []
    batch = Moments.of([(entity, first[entity]) for entity in entities]).batch(view)
    statement = sql.SQL(
        """
        SELECT entity.number, log.*
        FROM {staged} AS entity
        CROSS JOIN LATERAL (
          SELECT event_timestamp, created, {fields} FROM {log} AS log WHERE {keys} {which}
        ) AS log
        """
    ).format(
        fields=_names(view.field_names),
        staged=stage(connection, f"moments_{view.key}", batch),
        log=sql.Identifier(view.log_table),
        keys=sql.SQL(" AND ").join(
            sql.SQL("log.{key} = entity.{key}").format(key=sql.Identifier(key)) for key in view.entity
        ),
        which=which,
    )
    ordered = sorted(entities)
    return [
        (ordered[number], at, created, values)
        for number, at, created, *values in connection.execute(statement, binary=True)
    ]


def _seeds(view: View, moments: Moments, latest: Mapping[Entity, tuple[datetime, tuple[float | None, ...]]]) -> Seeds:
    at = np.full(len(moments.entities), LONG_AGO)
    rows = np.full((len(moments.entities), len(view.fields)), np.nan)
    if latest:
        for index, entity in enumerate(moments.entities):
            row = latest.get(entity)
            if row is not None:
                at[index] = to_microseconds(row[0])
                rows[index] = _values(row[1])
    return Seeds(at, rows)


def _compute(connection: Connection[Any], definition: Definition, moments: Moments, seeds: Seeds | None) -> Rows:
    if definition.seeded or len(moments) <= _COMPUTED_TOGETHER:
        return definition.compute(connection, moments, seeds)
    # A late event may ask for any number of rows, and windows take memory for each.
    return np.concatenate(
        [
            definition.compute(
                connection, moments.take(np.arange(begin, min(begin + _COMPUTED_TOGETHER, len(moments))))
            )
            for begin in range(0, len(moments), _COMPUTED_TOGETHER)
        ]
    )


def _write(
    connection: Connection[Any], view: View, moments: Moments, rows: Rows, became_known: NDArray[np.int64]
) -> None:
    keys = zip(*(moments.entities[entity] for entity in moments.entity), strict=True)
    batch = pa.record_batch(
        {
            **{name: pa.array(values, staging.TEXT) for name, values in zip(view.entity, keys, strict=True)},
            "event_timestamp": pa.array(moments.at, staging.TIME),
            "created": pa.array(became_known, staging.TIME),
            **{
                name: pa.array(np.ascontiguousarray(rows[:, index]), staging.FLOAT, from_pandas=True)
                for index, name in enumerate(view.field_names)
            },
        }
    )
    partitions.ensure(connection, view.log_table, int(moments.at.min()), int(moments.at.max()))
    connection.execute(
        sql.SQL("INSERT INTO {log} ({columns}) SELECT {columns} FROM {staged}").format(
            log=sql.Identifier(view.log_table),
            columns=_names(tuple(batch.schema.names)),
            staged=stage(connection, f"rows_{view.key}", batch),
        )
    )


def _values(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array(values, np.float64)  # None becomes NaN


@lru_cache(maxsize=128)
def _names(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
