"""Computes the rows that events ask for and appends them to the feature logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, LiteralString

import numpy as np
import pyarrow as pa
from psycopg import Connection, sql

from conductor_features.views import View
from conductor_warehouse import partitions, staging
from conductor_warehouse.features.arrays import FOREVER, numbers
from conductor_warehouse.features.definition import Definition, Rows, Seeds
from conductor_warehouse.features.moments import (
    LONG_AGO,
    Entity,
    Integers,
    Microseconds,
    Moment,
    Moments,
    Touched,
    entity_batch,
    positions,
)
from conductor_warehouse.features.registry import DEFINITIONS
from conductor_warehouse.staging import stage
from conductor_warehouse.times import to_microseconds

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
    views = [(definition, touched[key]) for key, definition in DEFINITIONS.items() if key in touched]
    return _append_all(connection, views, created)


def append_view(connection: Connection[Any], definition: Definition, what: Touched, created: datetime) -> int:
    """As :func:`append`, of one view."""
    return _append_all(connection, [(definition, what)], created)


def _append_all(connection: Connection[Any], views: Sequence[tuple[Definition, Touched]], created: datetime) -> int:
    # The tables are read a few rows at a time by index, which the planner can't know while they are still small, or
    # were when it made the plan that it keeps.
    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off")
    count = sum(_append(connection, definition, what, to_microseconds(created)) for definition, what in views)
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
class _Logged:
    """Rows of the log, in columns."""

    number: Integers
    """Position of each row's entity. Shape (rows,)."""
    at: Microseconds
    created: Microseconds
    values: Rows
    """Shape (rows, fields)."""

    def take(self, which: Any) -> _Logged:
        """Some of the rows."""
        return _Logged(self.number[which], self.at[which], self.created[which], self.values[which])


def _append(connection: Connection[Any], definition: Definition, what: Touched, created: int) -> int:
    entities = sorted({*what.wanted.entities, *what.changed.entities})
    if not entities:
        return 0
    wanted, wanted_at = positions(what.wanted.entities, entities), np.array(what.wanted.at, np.int64)
    changed, changed_at = positions(what.changed.entities, entities), np.array(what.changed.at, np.int64)
    first_change, last_change = np.full(len(entities), FOREVER), np.full(len(entities), LONG_AGO)
    np.minimum.at(first_change, changed, changed_at)
    np.maximum.at(last_change, changed, changed_at)
    first = first_change.copy()
    np.minimum.at(first, wanted, wanted_at)

    known, latest = _read(connection, definition, entities, first)
    reach = FOREVER if definition.reach is None else int(definition.reach.total_seconds() * 1_000_000)
    # Rows that are there already and may have become others.
    affected = (known.at >= first_change[known.number]) & (known.at - reach <= last_change[known.number])
    moments = Moments.ordered(
        entities,
        np.concatenate([wanted, known.number[affected]]),
        np.concatenate([wanted_at, known.at[affected]]),
    )
    if not len(moments):
        return 0
    seeds, computed = _seeds(definition.view, entities, latest), moments
    having = np.unique(moments.entity)
    if len(having) < len(entities):
        # What changed for the others is nothing that the log tells of.
        computed, seeds = moments.take(np.arange(len(moments))), seeds.take(having)
    rows = _compute(connection, definition, computed, seeds)
    became_known = np.full(len(moments), created)
    if len(known.at):
        differs = _differing(moments, rows, known, became_known)
        moments, rows, became_known = moments.take(differs), rows[differs], became_known[differs]
    if len(moments):
        _write(connection, definition.view, moments, rows, became_known)
    return len(moments)


def _differing(moments: Moments, rows: Rows, known: _Logged, became_known: Microseconds) -> Any:
    """Which rows are not what the log holds; a row that replaces another is made to become known after it."""
    latest = {
        (number, at): index
        for index, (number, at) in enumerate(zip(known.number.tolist(), known.at.tolist(), strict=True))
    }
    differs = np.ones(len(moments), bool)
    for index, moment in enumerate(zip(moments.entity.tolist(), moments.at.tolist(), strict=True)):
        row = latest.get(moment)
        if row is not None:
            differs[index] = not np.array_equal(rows[index], known.values[row], equal_nan=True)
            became_known[index] = max(became_known[index], known.created[row] + 1)
    return differs


def _read(
    connection: Connection[Any], definition: Definition, entities: Sequence[Entity], first: Microseconds
) -> tuple[_Logged, _Logged]:
    """The rows from each entity's first moment on; and, for a seeded definition, each entity's latest row before it."""
    view, everybody = definition.view, np.arange(len(entities))
    if not definition.seeded:
        return _rows(connection, view, entities, everybody, first, _SINCE), _nothing(view)
    # Nearly every entity's latest row is of an earlier moment: then one row is all there is to read.
    latest = _rows(connection, view, entities, everybody, first, _LATEST)
    early = latest.at < first[latest.number]
    late = latest.number[~early]
    if not len(late):
        return _nothing(view), latest
    before = _rows(connection, view, entities, late, first, _BEFORE)
    seeds = [latest.take(early), before]
    return _rows(connection, view, entities, late, first, _SINCE), _Logged(
        *(np.concatenate([getattr(part, name) for part in seeds]) for name in ("number", "at", "created", "values"))
    )


# OFFSET 0 keeps it a look-up for each entity: the planner would join the whole log.
_SINCE = "AND event_timestamp >= entity.first_time OFFSET 0"
_BEFORE = "AND event_timestamp < entity.first_time ORDER BY event_timestamp DESC, created DESC LIMIT 1"
_LATEST = "ORDER BY event_timestamp DESC, created DESC LIMIT 1"


@lru_cache(maxsize=128)
def _reading(view: View, condition: LiteralString) -> bytes:
    """The statement that reads rows of the staged entities."""
    statement = sql.SQL(
        """
        SELECT array_send(array_agg(number::double precision)), array_send(array_agg(event_timestamp)),
          array_send(array_agg(created)), {columns}
        FROM (
          SELECT entity.number, log.*
          FROM {staged} AS entity
          CROSS JOIN LATERAL (
            SELECT event_timestamp, created, {fields} FROM {log} AS log WHERE {keys} {condition}
          ) AS log
          {order}
        ) AS found
        """
    ).format(
        columns=sql.SQL(", ").join(
            sql.SQL("array_send(array_agg(coalesce({}, 'NaN')))").format(sql.Identifier(name))
            for name in view.field_names
        ),
        fields=_names(view.field_names),
        staged=sql.Identifier(f"staged_logged_{view.key}"),
        log=sql.Identifier(view.log_table),
        keys=sql.SQL(" AND ").join(
            sql.SQL("log.{key} = entity.{key}").format(key=sql.Identifier(key)) for key in view.entity
        ),
        condition=sql.SQL(condition),
        # One row of each entity has no order.
        order=sql.SQL("ORDER BY created") if condition == _SINCE else sql.SQL(""),
    )
    return statement.as_bytes(None)


def _nothing(view: View) -> _Logged:
    none = np.empty(0, np.int64)
    return _Logged(none, none, none, np.empty((0, len(view.fields))))


def _rows(
    connection: Connection[Any],
    view: View,
    entities: Sequence[Entity],
    which: Integers,
    first: Microseconds,
    condition: LiteralString,
) -> _Logged:
    """Rows of the log of some of the entities, in the order in which they became known."""
    if not len(which):
        return _nothing(view)
    batch = entity_batch(view, [entities[index] for index in which], {"first_time": first[which]})
    stage(connection, f"logged_{view.key}", batch)
    statement = _reading(view, condition)
    row = connection.execute(statement, binary=True).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return _Logged(
        which[numbers(row[0], float).astype(np.int64)],
        numbers(row[1], int),
        numbers(row[2], int),
        np.column_stack([numbers(values, float) for values in row[3:]]),
    )


def _seeds(view: View, entities: Sequence[Entity], latest: _Logged) -> Seeds:
    at = np.full(len(entities), LONG_AGO)
    rows = np.full((len(entities), len(view.fields)), np.nan)
    at[latest.number] = latest.at
    rows[latest.number] = latest.values
    return Seeds(at, rows)


def _compute(connection: Connection[Any], definition: Definition, moments: Moments, seeds: Seeds | None) -> Rows:
    if definition.seeded or len(moments) <= _COMPUTED_TOGETHER:
        return definition.compute(connection, moments, seeds)
    # A late event may ask for any number of rows, and windows take memory for each.
    parts = np.array_split(np.arange(len(moments)), -(-len(moments) // _COMPUTED_TOGETHER))
    return np.concatenate([definition.compute(connection, moments.take(part)) for part in parts])


def _write(connection: Connection[Any], view: View, moments: Moments, rows: Rows, became_known: Microseconds) -> None:
    keys = zip(*moments.entities, strict=True)
    missing = np.isnan(rows)
    batch = pa.record_batch(
        {
            **{
                name: pa.array(values, staging.TEXT).take(moments.entity)
                for name, values in zip(view.entity, keys, strict=True)
            },
            "event_timestamp": pa.array(moments.at, staging.BIG_INTEGER).cast(staging.TIME),
            "created": pa.array(became_known, staging.BIG_INTEGER).cast(staging.TIME),
            **{
                name: pa.array(rows[:, index], staging.FLOAT, mask=missing[:, index])
                for index, name in enumerate(view.field_names)
            },
        }
    )
    partitions.ensure(connection, view.log_table, int(moments.at.min()), int(moments.at.max()))
    stage(connection, f"rows_{view.key}", batch)
    connection.execute(_writing(view))


@lru_cache(maxsize=128)
def _writing(view: View) -> bytes:
    """The statement that appends the staged rows."""
    columns = _names((*view.entity, "event_timestamp", "created", *view.field_names))
    return (
        sql.SQL("INSERT INTO {log} ({columns}) SELECT {columns} FROM {staged}")
        .format(log=sql.Identifier(view.log_table), columns=columns, staged=sql.Identifier(f"staged_rows_{view.key}"))
        .as_bytes(None)
    )


@lru_cache(maxsize=128)
def _names(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
