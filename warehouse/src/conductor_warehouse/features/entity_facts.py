"""What a fold begins with and goes through: each entity's row before, and its facts since."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

from conductor_features.views import View
from conductor_warehouse.features.arrays import numbers
from conductor_warehouse.features.definition import Rows, Seeds
from conductor_warehouse.features.moments import Moments
from conductor_warehouse.staging import stage


def seed_rows(view: View, moments: Moments, seeds: Seeds | None, counts: tuple[str, ...]) -> Rows:
    """The state to begin with: the row before, or one in which nothing has happened."""
    rows = np.full((len(moments.entities), len(view.fields)), np.nan)
    fresh = np.ones(len(rows), bool) if seeds is None else np.isnan(seeds.rows).all(axis=1)
    if seeds is not None:
        rows[~fresh] = seeds.rows[~fresh]
    for name in counts:
        rows[fresh, view.field_index[name]] = 0.0
    return rows


def read_facts(
    connection: Connection[Any],
    view: View,
    moments: Moments,
    seeds: Seeds | None,
    columns: LiteralString,
    source: LiteralString,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Facts after each entity's seed: the entity's number, the time, the columns; in the order that counts."""
    name = f"moments_{view.key}"
    stage(connection, name, moments.batch(view, seeds.at if seeds is not None else None))
    row = connection.execute(_reading(name, columns, source), binary=True).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    table = np.column_stack([numbers(row[2], float), numbers(row[3], float)])
    return numbers(row[0], float).astype(np.int64), numbers(row[1], int), table


@lru_cache(maxsize=128)
def _reading(staged: str, columns: LiteralString, source: LiteralString) -> bytes:
    statement = sql.SQL(
        "SELECT array_send(array_agg(number::double precision)), array_send(array_agg(completed_time)),"
        " array_send(array_agg(one::double precision)), array_send(array_agg(other::double precision))"
        " FROM (SELECT number, completed_time, {columns} FROM {staged} AS entity {source}) AS fact"
    )
    return statement.format(
        columns=sql.SQL(columns), staged=sql.Identifier(f"staged_{staged}"), source=sql.SQL(source)
    ).as_bytes(None)
