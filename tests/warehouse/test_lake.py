"""The lake holds what the warehouse holds, whatever comes late, goes or is corrected.

What stands for S3 here is moto, a server that imitates its interface on this machine: no request goes to S3 itself.
"""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conductor_warehouse import retention
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.lake import Lake, layout
from conductor_warehouse.lake.export import export
from conductor_warehouse.lake.vacuum import vacuum
from warehouse.catalogue import TENANTS
from warehouse.histories import START, Build, completed_event, events_of, queued_event
from warehouse.lakes import (
    DAY,
    EVENTS,
    HOUR,
    LATE,
    SMALL,
    assert_holds_the_warehouse,
    data_keys,
    days,
    parts,
    problems,
    url_of,
)
from warehouse.variants import variant, variant_warehouse  # noqa: F401


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
