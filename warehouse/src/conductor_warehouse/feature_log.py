"""Feature rows as of a moment, and the log that they are appended to.

A view's one definition is ``feature_sql/<view key>.sql``: a SELECT of one row with a column for each field of the view,
as of ``moment.at`` for the entity ``moment.tenant_id``, … It must not look beyond ``moment.at``, and must fix the order
of whatever a tie could change. A first line ``-- reach: 1 day`` says that a fact can't change rows further ahead than
that; without it any later row may change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any

from psycopg import Connection, sql

from conductor_features.views import VIEWS, View

Entity = tuple[str, ...]
"""Values of a view's join keys."""
Moment = tuple[Entity, datetime]

CHANNEL = "conductor_feature_log"
"""PostgreSQL notifies it when rows were appended."""

_REACH = re.compile(r"\A-- reach: (.+)\n")


@dataclass
class Touched:
    """What a batch of events means for one view."""

    moments: set[Moment] = field(default_factory=set)
    """Where the events themselves want a row."""
    changed: dict[Entity, tuple[datetime, datetime]] = field(default_factory=dict)
    """First and last moment at which something that the entity's rows tell of has changed."""

    def change(self, entity: Entity, moment: datetime) -> None:
        """Something of ``entity`` has changed as of ``moment``."""
        first, last = self.changed.get(entity, (moment, moment))
        self.changed[entity] = (min(first, moment), max(last, moment))


def compute(connection: Connection[Any], view: View, moments: Sequence[Moment]) -> list[tuple[float | None, ...]]:
    """Rows of ``view`` for each (entity, moment), from the builds and not from the log; NULL is missing."""
    statement = sql.SQL(
        "SELECT {fields} FROM unnest({arrays}, %(at)s::timestamptz[]) WITH ORDINALITY AS moment({keys}, at, position)"
        " CROSS JOIN LATERAL ({definition}) AS feature ORDER BY position"
    ).format(
        fields=_columns("feature", view.field_names),
        arrays=_arrays(view.entity, ""),
        keys=_names(view.entity),
        definition=_definition(view.key)[0],
    )
    return connection.execute(
        statement, _parameters(view.entity, "", moments) | {"at": [at for _, at in moments]}
    ).fetchall()


def append(connection: Connection[Any], touched: Mapping[str, Touched], created: datetime) -> int:
    """Append the rows that the touched moments ask for, one statement per view (by its key); returns how many rows.

    A late event also changes rows that were written before it came: those that now differ are appended anew, with a
    later ``created``. A row that would repeat the latest one of its entity and moment is left out, so events in any
    order, in any batches, end in the same latest rows.

    Must run in the transaction that stores the events, with the tenants locked.
    """
    # The tables are read a few rows at a time by index, which the planner can't know while they are still small, or
    # were when it made the plan that it keeps.
    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off")
    count = 0
    for key, what in touched.items():
        view = VIEWS[key]
        moments, changes = sorted(what.moments), sorted(what.changed.items())
        parameters = (
            _parameters(view.entity, "moment_", moments)
            | _parameters(view.entity, "changed_", changes)
            | {
                "at": [at for _, at in moments],
                "first": [first for _, (first, _) in changes],
                "last": [last for _, (_, last) in changes],
                "reach": _definition(view.key)[1],
                "created": created,
            }
        )
        count += connection.execute(_append_statement(view), parameters).rowcount
    if count:
        connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    return count


@lru_cache(maxsize=128)
def _append_statement(view: View) -> sql.Composed:
    return sql.SQL(
        """
        WITH moment AS MATERIALIZED (
          SELECT * FROM unnest({moment_arrays}, %(at)s::timestamptz[]) AS moment({keys}, at)
          UNION
          SELECT {log_keys}, log.event_timestamp
          FROM unnest({changed_arrays}, %(first)s::timestamptz[], %(last)s::timestamptz[])
            AS changed({keys}, first, last)
          JOIN {log} AS log ON ({log_keys}) = ({changed_keys})
            AND log.event_timestamp >= changed.first
            AND log.event_timestamp <= coalesce(changed.last + %(reach)s::interval, 'infinity')
        )
        INSERT INTO {log} ({keys}, event_timestamp, created, {fields})
        SELECT {moment_keys}, moment.at,
          greatest(%(created)s, known.created + interval '1 microsecond'), {feature_fields}
        FROM moment
        CROSS JOIN LATERAL ({definition}) AS feature
        LEFT JOIN LATERAL (
          SELECT * FROM {log} AS log
          WHERE ({log_keys}) = ({moment_keys}) AND log.event_timestamp = moment.at
          ORDER BY created DESC
          LIMIT 1
        ) AS known ON true
        WHERE known.created IS NULL OR ROW({feature_fields}) IS DISTINCT FROM ROW({known_fields})
        ORDER BY moment.at
        """
    ).format(
        log=sql.Identifier(view.log_table),
        keys=_names(view.entity),
        fields=_names(view.field_names),
        moment_arrays=_arrays(view.entity, "moment_"),
        changed_arrays=_arrays(view.entity, "changed_"),
        log_keys=_columns("log", view.entity),
        changed_keys=_columns("changed", view.entity),
        moment_keys=_columns("moment", view.entity),
        feature_fields=_columns("feature", view.field_names),
        known_fields=_columns("known", view.field_names),
        definition=_definition(view.key)[0],
    )


@lru_cache(maxsize=128)
def _definition(view_key: str) -> tuple[sql.SQL, str | None]:
    """The view's SELECT, and how far ahead of a fact it looks at it (None: without limit)."""
    text = (resources.files("conductor_warehouse") / "feature_sql" / f"{view_key}.sql").read_text()
    reach = _REACH.match(text)
    # A percent sign would be taken for a parameter; braces are not formatted again.
    return sql.SQL(text.replace("%", "%%")), reach.group(1) if reach else None


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _columns(table: str, names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in names)


def _arrays(keys: Iterable[str], prefix: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{}::text[]").format(sql.Placeholder(prefix + key)) for key in keys)


def _parameters(keys: Sequence[str], prefix: str, rows: Sequence[tuple[Entity, Any]]) -> dict[str, Any]:
    return {prefix + key: [entity[index] for entity, _ in rows] for index, key in enumerate(keys)}
