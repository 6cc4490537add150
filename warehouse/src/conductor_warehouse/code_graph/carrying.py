"""Carries graphs to the online store: of each repository the latest.

A graph lies under a key of its own for each snapshot; the repository's key holds the snapshot's number. So who reads
never sees half of one, and looks at a few bytes to know that nothing changed.
"""

from __future__ import annotations

from typing import Any, cast

from psycopg import Connection

from conductor_features.changes.graph_codec import HEADER_BYTES, VIEW_KEY, graph_keys, snapshot_of
from conductor_features.clients import Client, position_keys

_REPLACED_SECONDS = 600
"""So long a replaced graph stays, for those who have just read its number."""


def carry_graphs(reading: Connection[Any], redis: Client) -> int:
    """Bring the online store up to date; returns how many graphs were written.

    Raises psycopg.Error or one of ``clients.FAILURES``. Safe to repeat; a store that lost its data, or a part, gets all
    that it lacks.
    """
    state = _state(reading)
    positions = position_keys(redis, VIEW_KEY)
    if all(redis.get(key) == state for key in positions):
        return 0
    count = 0
    latest = reading.execute(
        "SELECT DISTINCT ON (tenant_id, repository) tenant_id, repository, snapshot_id, length(graph)"
        " FROM code_snapshots ORDER BY tenant_id, repository, indexed_time DESC, snapshot_id DESC"
    ).fetchall()
    for tenant_id, repository, snapshot_id, size in latest:
        count += _carry(reading, redis, (tenant_id, repository), snapshot_id, size)
    for key in positions:
        redis.set(key, state)
    return count


def _state(reading: Connection[Any]) -> bytes:
    """Differs whenever a snapshot came or went. Numbers are drawn before the commit, so the greatest alone won't do."""
    row = reading.execute("SELECT count(*), coalesce(sum(snapshot_id), 0) FROM code_snapshots").fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return f"{row[0]} {row[1]}".encode()


def _carry(reading: Connection[Any], redis: Client, entity: tuple[str, str], snapshot_id: int, size: int) -> bool:
    pointer, place = graph_keys(entity, snapshot_id)
    held = cast(bytes | None, redis.get(pointer)) or b""
    before = snapshot_of(pointer, held)
    if before == snapshot_id and redis.strlen(place) == size:
        return False
    row = reading.execute(
        "SELECT graph FROM code_snapshots WHERE (tenant_id, snapshot_id) = (%s, %s)",
        (entity[0], snapshot_id),
        binary=True,
    ).fetchone()
    if row is None:  # replaced meanwhile: its successor comes in the next round
        return False
    graph = bytes(row[0])
    redis.set(place, graph)
    redis.set(pointer, graph[:HEADER_BYTES])
    if before is not None and before != snapshot_id:
        redis.expire(graph_keys(entity, before)[1], _REPLACED_SECONDS)
    return True
