"""The lake: it holds what the warehouse holds, whatever happens to exports, and tells when it does not any more.

What stands for S3 here is moto, a server that imitates its interface on this machine: no request goes to S3 itself.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from conductor_client._command_group import app
from conductor_storage import Objects, StoredObject
from conductor_warehouse import retention
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, LakeCorrupt, LakeMoved, LakeVersion, VersionNotFound, layout
from conductor_warehouse.lake.export import ExportResult, export
from conductor_warehouse.lake.source import Source
from conductor_warehouse.lake.vacuum import vacuum
from conductor_warehouse.lake.verification import verify
from warehouse.catalogue import TENANTS, random_events
from warehouse.histories import START, Build, completed_event, events_of, queued_event
from warehouse.variants import variant, variant_warehouse  # noqa: F401

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


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(tmp_path / "lake")


@pytest.fixture(scope="module")
def moto_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it tells of every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_lake(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket of moto's."""
    for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.setenv(f"AWS_{name}", {"ENDPOINT_URL": moto_endpoint, "REGION": "us-east-1"}.get(name, "test"))
    urllib.request.urlopen(urllib.request.Request(f"{moto_endpoint}/history", method="PUT")).close()  # noqa: S310
    return "s3://history/conductor"


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


def copy_of(lake: Lake) -> Lake:
    """The same lake, in memory."""
    copy = Lake.open("memory:///")
    for entry in lake.objects.list(""):
        copy.objects.put(entry.key, lake.objects.get(entry.key) or b"")
    return copy


class Killed(Exception):
    """Stands for the process's end: no later write is done either."""


def killed_at(lake: Lake, number: int) -> tuple[Lake, list[str]]:
    """The lake for a process that dies before its write of that number, and the writes that it tried."""
    tried: list[str] = []
    lock = threading.Lock()

    def before(key: str) -> None:
        with lock:
            tried.append(key)
            if len(tried) > number:
                raise Killed

    return Lake(Wrapped(lake.objects, before)), tried


def assert_many_exports_are_one(
    connection: psycopg.Connection[Any], events: list[bytes], lake: Lake, other: Lake
) -> None:
    """The core of it: by and by, with late events and corrections, ends where one export of everything ends."""
    url = url_of(connection)
    first, second, third = (len(events) * share // 8 for share in (1, 2, 5))
    late = events[first:second]
    for some in (events[:first], events[second:third], events[third:], late, events):
        ingest(connection, some)
        result = export(lake, url)
        assert not problems(lake)
    assert result.unchanged  # all of the last were duplicates
    assert assert_holds_the_warehouse(lake, connection) > 2 * len(events)
    assert export(other, url).version == result.version
    assert len(lake.generations()) == 4 and len(other.generations()) == 1
    assert export(lake, url, full=True).version == result.version


def test_many_exports_are_one(variant_warehouse: psycopg.Connection, lake: Lake) -> None:  # noqa: F811
    assert_many_exports_are_one(variant_warehouse, EVENTS, lake, Lake.open("memory:///"))


def test_many_exports_are_one_through_the_s3_interface(warehouse: psycopg.Connection, s3_lake: str) -> None:
    """Against moto, which imitates S3 on this machine; S3 itself is not tested here."""
    lake = Lake.open(s3_lake)
    assert_many_exports_are_one(warehouse, EVENTS[:32], lake, Lake.open("memory:///"))
    # Four at once, each from the same generation: conditional puts let one through at a time.
    ingest(warehouse, [queued_event(LATE)])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: export(Lake.open(s3_lake), url_of(warehouse)), range(4)))
    assert len({result.version for result in results}) == 1
    assert sum(not result.unchanged for result in results) == 1
    assert not problems(lake)
    entry = lake.version()[1].entries[0]
    key = lake.files(entry).files[0].key
    lake.objects.delete(key)
    assert problems(lake) == {key: f"{key} is absent"}


def test_a_late_event_rewrites_only_its_days(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, EVENTS)
    export(lake, url)
    tables = sorted({entry.table for entry in lake.version()[1].entries})
    before = {(table, tenant): days(lake, table, tenant) for table in tables for tenant in TENANTS}
    [moment] = warehouse.execute("SELECT clock_timestamp()").fetchone() or [None]
    late = Build("late", START + 3 * DAY - HOUR, START + 3 * DAY + HOUR, duration=50.0)
    ingest(warehouse, [queued_event(late), completed_event(late)])
    result = export(lake, url)

    first, second = (late.queued.date(), (late.queued + DAY).date())
    expected = {"events": {first, second}, "builds": {first}, "completed_builds": {second}}
    for table in tables:
        if table.startswith("feature_log_"):
            logged = warehouse.execute(
                f"SELECT DISTINCT (event_timestamp AT TIME ZONE 'UTC')::date FROM {table} WHERE created > %s".encode(),  # noqa: S608
                (moment,),
            )
            expected[table] = {day for (day,) in logged}
    files = 0
    for table in tables:
        after = days(lake, table, "acme")
        old = before[table, "acme"]
        changed = {day for day in after | old if after.get(day) != old.get(day)}
        assert changed == expected.get(table, set()), table
        assert days(lake, table, "globex") == before[table, "globex"]
        files += len(changed)
    assert 5 < files == result.files < 40


def test_an_export_killed_at_any_step_leaves_the_lake_readable_and_the_next_completes_it(
    warehouse: psycopg.Connection,
) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL)
    base = Lake.open("memory:///")
    old = export(base, url).version
    ingest(warehouse, [queued_event(LATE)])
    whole = Lake.open("memory:///")
    new = export(whole, url)
    resumed = 0
    for number in count():
        lake = copy_of(base)
        dying, tried = killed_at(lake, number)
        try:
            export(dying, url, checkpoint_seconds=0)
        except Killed:
            # Until the pointer has moved the old version is in force, then the new one; nothing in between.
            moved = layout.PROGRESS in tried and layout.generation_key(2) in tried[:-1]
            assert lake.version()[0] == (new.version if moved else old)
            assert not problems(lake)
        else:
            break
        result = export(lake, url)
        assert (result.version, result.generation, result.unchanged) == (new.version, 2, moved)
        resumed += result.resumed
        assert not problems(lake, lake.versions())
        # What the killed export left behind, and the old version, go; what is needed stays.
        vacuum(lake, HOUR, now=datetime.now(UTC) + 2 * HOUR)
        assert data_keys(lake) == data_keys(whole)
        assert lake.versions() == [new.version]
    assert number == len(tried) > 10
    assert resumed > number  # killed exports are gone on with, not begun anew


def test_an_export_into_nothing_killed_at_any_step(warehouse: psycopg.Connection) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL)
    expected = export(Lake.open("memory:///"), url).version
    for number in count(0, 16):
        lake = Lake.open("memory:///")
        dying, tried = killed_at(lake, number)
        try:
            export(dying, url, checkpoint_seconds=0)
        except Killed:
            if layout.generation_key(1) not in tried[:-1]:
                with pytest.raises(VersionNotFound, match="conductor lake export"):
                    lake.version()
        else:
            break
        ingest(warehouse, SMALL)  # nothing new
        assert export(lake, url).version == expected
        assert not problems(lake)
    assert number > 20


def test_what_was_committed_after_a_killed_export_is_not_missed_when_it_is_gone_on_with(
    warehouse: psycopg.Connection, lake: Lake
) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    dying, tried = killed_at(lake, 12)
    with pytest.raises(Killed):
        export(dying, url, checkpoint_seconds=0)
    assert layout.PROGRESS in tried
    ingest(warehouse, [*SMALL[4:], queued_event(LATE), completed_event(LATE)])
    result = export(lake, url)
    assert result.resumed > 0
    assert result.version == export(Lake.open("memory:///"), url).version
    assert_holds_the_warehouse(lake, warehouse)


def test_of_two_exports_at_once_one_wins_and_the_other_begins_anew(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:6])
    others: list[ExportResult] = []

    def before(key: str) -> None:
        # The moment before this one would have moved the pointer: another does, and more is committed.
        if key == layout.generation_key(2) and not others:
            ingest(warehouse, SMALL[6:])
            others.append(export(lake, url))
            ingest(warehouse, [queued_event(LATE)])

    result = export(Lake(Wrapped(lake.objects, before)), url)
    [other] = others
    assert (other.generation, result.generation) == (2, 3)
    assert lake.generation(2).version == other.version != result.version
    assert result.parts < other.parts  # only what was committed last
    assert not problems(lake, lake.versions())
    assert result.version == export(Lake.open("memory:///"), url).version


def test_an_export_that_is_overtaken_again_and_again_gives_up(
    warehouse: psycopg.Connection, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conductor_warehouse.lake.export._MOST_ATTEMPTS", 3)
    ingest(warehouse, SMALL[:2])

    class Overtaken(Wrapped):
        def put_if_absent(self, key: str, content: bytes) -> bool:
            return layout.parse_generation_key(key) is None and super().put_if_absent(key, content)

    with pytest.raises(LakeMoved, match="run it again"):
        export(Lake(Overtaken(lake.objects, lambda _: None)), url_of(warehouse))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": _flip,
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damage_and_reading_refuses_it(
    warehouse: psycopg.Connection, lake: Lake, tmp_path: Path, damage: str
) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:])
    export(lake, url)
    name, version = lake.version()
    entry = version.entry("builds", "acme")
    assert entry is not None
    for key in (lake.files(entry).files[0].key, layout.files_key(entry.files_digest), layout.version_key(name)):
        path = tmp_path / "lake" / key
        good = path.read_bytes()
        DAMAGES[damage](path)
        told = [f"{subject}: {problem}" for subject, problem in problems(lake).items()]
        assert any(key in one or one.startswith(f"version {name[:16]}") for one in told), (key, told)
        with pytest.raises(LakeCorrupt, match=key):
            lake.read(lake.version()[1], "builds", "acme")
        path.write_bytes(good)
        assert not problems(lake)
    # A damaged pointer: the one before it is in force, and the next export goes on from there.
    path = tmp_path / "lake" / layout.generation_key(2)
    if damage != "deleted":
        DAMAGES[damage](path)
        if damage != "flipped":  # a flipped byte may leave another valid time: told by no digest
            assert layout.generation_key(2) in problems(lake)
            assert lake.version()[0] == lake.generation(1).version
            assert export(lake, url).version == name
            assert lake.current()[0] == 3


def test_damage_is_mended_by_a_full_export(warehouse: psycopg.Connection, lake: Lake, tmp_path: Path) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL)
    name = export(lake, url).version
    entry = lake.version()[1].entries[0]
    for key in (lake.files(entry).files[0].key, layout.files_key(entry.files_digest), layout.version_key(name)):
        _flip(tmp_path / "lake" / key)
        assert problems(lake)
        assert export(lake, url, full=True).version == name
        assert not problems(lake)
    # Only part of it would leave out the rest.
    _flip(tmp_path / "lake" / layout.version_key(name))
    with pytest.raises(LakeCorrupt):
        export(lake, url, full=True, tenants=["acme"])


def test_verify_finds_rows_of_another_tenant(warehouse: psycopg.Connection, lake: Lake) -> None:
    """Even where digests agree: a version that was made by other means."""
    from dataclasses import replace

    from conductor_warehouse.lake.records import Entry, FileList, digest_of

    ingest(warehouse, SMALL)
    export(lake, url_of(warehouse))
    version = lake.version()[1]
    acme, globex = (version.entry("builds", tenant) for tenant in TENANTS)
    assert acme and globex
    files = FileList("builds", "acme", lake.files(globex).files)
    digest = digest_of(files.to_json())
    lake.objects.put(layout.files_key(digest), files.to_json())
    forged = replace(
        version, entries=tuple(Entry.of(files, digest, None) if one is acme else one for one in version.entries)
    )
    lake.objects.put(layout.version_key(forged.digest), forged.to_json())
    assert not problems(lake)
    assert all("other tenants than 'acme'" in problem for problem in problems(lake, [forged.digest]).values())
    assert len(problems(lake, [forged.digest])) == len(files.files)


def test_tenants_rows_never_meet(warehouse: psycopg.Connection, lake: Lake) -> None:
    """Names that would be the same folder, or another one, in some file system."""
    names = ["acme", "Acme", "acme/..", "acme=1", "a%63me", ".", "Ünï ☃", "x" * 120]
    builds = [
        Build(f"b{n}-{number}", START + n * HOUR, START + n * HOUR + HOUR, duration=9.0, tenant=name)
        for number, name in enumerate(names)
        for n in range(3)
    ]
    result = ingest(warehouse, events_of(builds))
    assert result.stored == 2 * len(builds)
    export(lake, url_of(warehouse))
    assert lake.version()[1].tenants == sorted(names)
    assert_holds_the_warehouse(lake, warehouse)
    assert not problems(lake)
    folders: dict[str, set[str]] = {}
    for key in data_keys(lake):
        [tenant] = set(pq.read_table(pa.BufferReader(lake.objects.get(key)))["tenant_id"].to_pylist())
        folders.setdefault(tenant, set()).add(key.split("/")[1].lower())
    assert sorted(folders) == sorted(names)
    assert len(set.union(*folders.values())) == len(names)


def test_tenants_and_tables_can_be_exported_alone(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, EVENTS[:70])
    export(lake, url, tenants=["acme"])
    assert lake.version()[1].tenants == ["acme"]
    export(lake, url, tables=["builds"])
    assert {tenant for table, tenant in parts(lake.version()[1]) if table != "builds"} == {"acme"}
    assert {tenant for table, tenant in parts(lake.version()[1]) if table == "builds"} == set(TENANTS)
    ingest(warehouse, EVENTS[70:])
    export(lake, url, tables=["events"], tenants=["globex"])
    assert not problems(lake)
    whole = export(Lake.open("memory:///"), url).version
    assert export(lake, url).version == whole
    with pytest.raises(ValueError, match="no table nonsense"):
        export(lake, url, tables=["nonsense"])


def test_history_since_a_day_can_be_extended_later(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, EVENTS)
    since = (START + 3 * DAY).date()
    export(lake, url, since=since)
    assert min(days(lake, "events")) == since
    late = Build("late", START + DAY, START + DAY + HOUR, duration=50.0)
    ingest(warehouse, [queued_event(late)])
    export(lake, url, since=since + DAY)  # no later than before: what is there stays
    assert min(days(lake, "events")) == since
    earlier = (START + DAY).date()
    result = export(lake, url, since=earlier)
    assert min(days(lake, "events")) == earlier
    assert export(lake, url, since=earlier, full=True).version == result.version
    assert not problems(lake)
    assert export(lake, url).version == export(Lake.open("memory:///"), url).version


def test_a_tenants_retention_takes_its_days_out(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    both_sides = [START + 3 * DAY + 6 * HOUR, START + 3 * DAY + 18 * HOUR]  # of the horizon
    builds = [Build(f"b{moment}", moment, moment + HOUR, duration=9.0) for moment in both_sides]
    ingest(warehouse, [*EVENTS, *events_of(builds)])
    export(lake, url)
    tables = sorted({entry.table for entry in lake.version()[1].entries})
    others = {table: days(lake, table, "globex") for table in tables}
    horizon = START + 3 * DAY + 12 * HOUR
    now = datetime.now(UTC)
    retention.put(warehouse, "acme", now - horizon)
    # Out of the lake at once, before the warehouse deletes; and the day that is kept in part goes whole.
    first = export(lake, url).version
    for table in tables:
        assert min(days(lake, table), default=date.max) >= (START + 4 * DAY).date(), table
        assert days(lake, table, "globex") == others[table]
    assert len(days(lake, "events")) > 2
    assert first == export(Lake.open("memory:///"), url).version
    retention.run(warehouse, now=now)
    assert export(lake, url).version == export(Lake.open("memory:///"), url).version
    assert not problems(lake)
    # Older versions have the rows until they are vacuumed.
    vacuum(lake, HOUR, now=now + 2 * HOUR)
    for key in data_keys(lake):
        _, tenant, day = layout.parse_data_key(key)
        assert tenant != "acme" or day >= (START + 4 * DAY).date()


def test_a_tenant_whose_data_are_gone_leaves_the_lake(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, EVENTS)
    export(lake, url)
    retention.put(warehouse, "acme", DAY)
    retention.run(warehouse, now=datetime(2029, 1, 1, tzinfo=UTC))
    export(lake, url)
    assert lake.version()[1].tenants == ["globex"]
    assert_holds_the_warehouse(lake, warehouse)


def test_vacuum_keeps_what_versions_in_use_need(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    names = []
    for events in (SMALL[:4], [queued_event(LATE)], [completed_event(LATE)], SMALL[4:]):
        ingest(warehouse, events)
        names.append(export(lake, url).version)
    assert len(set(names)) == 4
    now = datetime.now(UTC)
    stored = {entry.key for entry in lake.objects.list("")}
    with pytest.raises(ValueError, match="an hour at least"):
        vacuum(lake, timedelta(minutes=59))
    with pytest.raises(VersionNotFound):
        vacuum(lake, HOUR, keep=["0123456789"], now=now + 2 * HOUR)
    assert vacuum(lake, 30 * DAY).files == 0  # all of them were in force within the last month
    planned = vacuum(lake, HOUR, keep=[names[1][:10]], dry_run=True, now=now + 2 * HOUR)
    assert {entry.key for entry in lake.objects.list("")} == stored
    done = vacuum(lake, HOUR, keep=[names[1][:10]], now=now + 2 * HOUR)
    assert done == planned
    assert (done.generations, done.versions) == (3, 2) and done.files > 0
    assert lake.versions() == sorted({names[1], names[3]})
    assert not problems(lake, lake.versions())
    assert lake.read(lake.version(names[1])[1], "builds", "acme").num_rows > 0
    assert vacuum(lake, HOUR, now=now + 2 * HOUR).files > 0  # nothing keeps it any more
    assert lake.versions() == [names[3]]
    assert not problems(lake)
    assert export(lake, url).unchanged


def test_vacuum_spares_an_export_that_is_under_way(warehouse: psycopg.Connection, lake: Lake) -> None:
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:])

    def before(key: str) -> None:
        if key == layout.generation_key(2):
            vacuum(lake, HOUR)

    export(Lake(Wrapped(lake.objects, before)), url)
    assert not problems(lake)


def test_another_database_is_compared_whole(warehouse: psycopg.Connection, lake: Lake) -> None:
    """As after a restore: positions of the old database say nothing in the new one."""
    url = url_of(warehouse)
    ingest(warehouse, SMALL[:4])
    export(lake, url)
    ingest(warehouse, SMALL[4:])
    with warehouse.transaction():
        warehouse.execute("UPDATE lake_source SET source_id = gen_random_uuid()")
        warehouse.execute("UPDATE lake_changes SET xid = '3'")  # as if all had been there before
    export(lake, url)
    assert_holds_the_warehouse(lake, warehouse)


def conductor(*arguments: str, lake: Path, database_url: str | None = None, code: int = 0) -> Any:
    """What a command printed as JSON; None for nothing."""
    environment = {"CONDUCTOR_LAKE": str(lake), "CONDUCTOR_DATABASE_URL": database_url}
    result = CliRunner().invoke(app, ["lake", *arguments, "-o", "json"], env=environment)
    assert result.exit_code == code, (result.stderr, result.exception)
    return json.loads(result.stdout) if result.stdout.strip() else result.stderr


def test_the_commands(warehouse_url: str, database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    for arguments in (["list"], ["verify"], ["list", "--version", "0123456"]):
        assert "lake" in conductor(*arguments, lake=folder, code=1)
    assert "CONDUCTOR_DATABASE_URL" in conductor("export", lake=folder, code=2)
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        ingest(connection, SMALL[:4])
        first = conductor("export", lake=folder, database_url=warehouse_url)
        assert first["changed"] and first["files"] > 0 and first["generation"] == 1
        assert not conductor("export", lake=folder, database_url=warehouse_url)["changed"]
        ingest(connection, SMALL[4:])
    second = conductor("export", "--table", "builds", "-t", "acme", lake=folder, database_url=warehouse_url)
    assert second["changed"] and second["parts"] == 1
    assert "no table nonsense" in conductor(
        "export", "--table", "nonsense", lake=folder, database_url=warehouse_url, code=2
    )
    listed = conductor("list", "--tenant", "acme", lake=folder)
    assert {row["tenant"] for row in listed} == {"acme"} and "builds" in {row["table"] for row in listed}
    files = conductor("list", "--table", "builds", "--files", lake=folder)
    assert all((folder / row["key"]).stat().st_size == row["bytes"] for row in files)
    versions = conductor("list", "--versions", lake=folder)
    assert [row["version"] for row in versions] == [second["version"], first["version"]]
    old = conductor("list", "--version", first["version"][:8], "--table", "builds", "--files", lake=folder)
    assert len(old) < len(files)
    conductor("verify", "--all", lake=folder)
    (folder / files[0]["key"]).write_bytes(b"")
    [damaged] = conductor("verify", lake=folder, code=1)
    assert damaged["checked"] == files[0]["key"]
    assert not conductor("vacuum", "--days", "1", "--dry-run", lake=folder)["deleted"]
    assert conductor("vacuum", "--days", "1", "--keep", first["version"], lake=folder)["files"] == 0
    assert "migrate" in conductor("export", lake=folder, database_url=database_url, code=1)
