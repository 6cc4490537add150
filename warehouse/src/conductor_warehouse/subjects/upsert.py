"""Reads and writes rows of subjects, each from the event that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from psycopg import Connection, sql

from conductor_features.views import VIEWS, View
from conductor_warehouse.events import Event
from conductor_warehouse.staging import TEXTS, Schema, batch_of, stage

Key = tuple[Any, ...]
"""Identifies a subject: the tenant first."""


def latest(events: Iterable[Event], key: Callable[[Event], Key]) -> dict[Key, Event]:
    """For each subject the event that counts, in the order of subjects."""
    found: dict[Key, Event] = {}
    for event in events:
        subject = key(event)
        known = found.get(subject)
        if known is None or event.rank > known.rank:
            found[subject] = event
    return dict(sorted(found.items()))


def upsert(
    connection: Connection[Any],
    table: str,
    keys: Schema,
    columns: Schema,
    rows: Sequence[tuple[Event, tuple[Any, ...]]],
    *,
    event_column: str = "event",
) -> list[Key]:
    """Write columns of subjects, unless they are from a greater event already; returns the keys of what was written.

    Args:
        connection: within the transaction that stores the events.
        table: of the subjects; a second table's columns may be written by a second event, each with its event column.
        keys: the table's primary key.
        columns: what the event tells.
        rows: each event with the values of keys and columns.
        event_column: says which event the columns are from.
    """
    if not rows:
        return []
    schema = {**keys, event_column: TEXTS, **columns}
    size = len(keys)
    batch = batch_of(schema, [(*values[:size], event.rank, *values[size:]) for event, values in rows])
    written = (event_column, *columns)
    statement = sql.SQL(
        """
        INSERT INTO {table} AS known ({names}) SELECT {names} FROM {staged}
        ON CONFLICT ({keys}) DO UPDATE SET ({written}) = ROW({excluded})
        WHERE known.{event} IS NULL OR known.{event} < excluded.{event}
        RETURNING {keys}
        """
    ).format(
        table=sql.Identifier(table),
        names=_names(schema),
        staged=stage(connection, f"{table}_{event_column}", batch),
        keys=_names(keys),
        written=_names(written),
        excluded=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in written),
        event=sql.Identifier(event_column),
    )
    return connection.execute(statement, binary=True).fetchall()


def read(
    connection: Connection[Any], table: str, keys: Schema, wanted: Sequence[Key], columns: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Keys and columns of those subjects that are there already."""
    # OFFSET 0 keeps it a look-up for each key: the planner would join a table that it takes for small.
    statement = sql.SQL(
        """
        SELECT known.* FROM {staged} AS wanted
        CROSS JOIN LATERAL (
          SELECT {names} FROM {table} AS subject WHERE {same} OFFSET 0
        ) AS known
        """
    ).format(
        staged=stage(connection, f"{table}_keys", batch_of(keys, wanted)),
        names=_names((*keys, *columns)),
        table=sql.Identifier(table),
        same=sql.SQL(" AND ").join(
            sql.SQL("subject.{key} = wanted.{key}").format(key=sql.Identifier(key)) for key in keys
        ),
    )
    return connection.execute(statement, binary=True).fetchall()


def views_of(*event_types: str) -> tuple[View, ...]:
    """Views that are computed from such events, as their lineage says."""
    return tuple(
        view
        for view in VIEWS.values()
        if any(column.startswith(f"{kind}.") for kind in event_types for column in view.lineage)
    )


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
