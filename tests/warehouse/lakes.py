"""What the lake's tests share: events, and questions about a lake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from conductor_storage import Objects, StoredObject
from conductor_warehouse.lake import Lake, LakeVersion, layout
from conductor_warehouse.lake.source import Source
from conductor_warehouse.lake.verification import verify
from warehouse.catalogue import TENANTS, random_events
from warehouse.histories import START, Build, events_of

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
EVENTS = random_events(11, 110)
SMALL = events_of(
    [
        Build(f"b{n}", START + n * 20 * HOUR, START + n * 20 * HOUR + HOUR, duration=60.0 + n, tenant=TENANTS[n % 2])
        for n in range(4)
    ]
)
LATE = Build("late", START + 2 * HOUR, START + 3 * HOUR, duration=50.0)


def url_of(connection: psycopg.Connection[Any]) -> str:
    return connection.info.dsn


def problems(lake: Lake, versions: list[str] | None = None) -> dict[str, str]:
    return {finding.subject: finding.problem for finding in verify(lake, versions) if finding.problem}


def parts(version: LakeVersion) -> set[tuple[str, str]]:
    return {(entry.table, entry.tenant_id) for entry in version.entries}


def days(lake: Lake, table: str, tenant: str = "acme") -> dict[date, list[str]]:
    """Digests of a part's files by day."""
    entry = lake.version()[1].entry(table, tenant)
    found: dict[date, list[str]] = {}
    for file in lake.files(entry).files if entry else ():
        found.setdefault(file.day, []).append(file.digest)
    return found


def data_keys(lake: Lake) -> set[str]:
    return {entry.key for entry in lake.objects.list("") if layout.is_data_key(entry.key)}


def assert_holds_the_warehouse(lake: Lake, connection: psycopg.Connection[Any]) -> int:
    """Every row of every table stands in its tenant's files and nowhere else; returns how many rows."""
    version = lake.version()[1]
    seen, rows = set(), 0
    with Source(url_of(connection)) as source:
        for table in source.tables():
            names = source.schema(table).names
            statement = (
                f"SELECT {', '.join(names)} FROM {table.source} WHERE tenant_id = %s AND {table.time} IS NOT NULL"  # noqa: S608
            )
            for tenant in source.tenants(table):
                expected = connection.execute(statement.encode(), (tenant,)).fetchall()
                found = lake.read(version, table.name, tenant, names).to_pylist()
                assert sorted(map(repr, ([*map(_plain, row)] for row in expected))) == sorted(
                    map(repr, ([*map(_plain, row.values())] for row in found))
                ), (table.name, tenant)
                seen.add((table.name, tenant))
                rows += len(found)
    assert parts(version) == seen
    return rows


def _plain(value: object) -> object:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


class Wrapped:
    """Objects that tell of every write before it is done."""

    def __init__(self, objects: Objects, before: Callable[[str], None]) -> None:
        self._objects, self._before = objects, before

    def get(self, key: str) -> bytes | None:
        return self._objects.get(key)

    def size(self, key: str) -> int | None:
        return self._objects.size(key)

    def list(self, prefix: str) -> list[StoredObject]:
        return self._objects.list(prefix)

    def put(self, key: str, content: bytes) -> None:
        self._before(key)
        self._objects.put(key, content)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        self._before(key)
        return self._objects.put_if_absent(key, content)

    def delete(self, key: str) -> None:
        self._before(key)
        self._objects.delete(key)
