"""The online store on a real Redis Cluster of three nodes: filled, read across slots, and mended when a node fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import redis
from typer.testing import CliRunner

from conductor_features.cli import commands
from conductor_features.clients import FAILURES, cluster_of, mget, open_client, position_keys
from conductor_features.feast_store import apply, open_store
from conductor_features.filling import replaying_mark
from conductor_features.keys import PREFIX, entity_key
from conductor_features.listing import listing_key
from conductor_features.listings import Listed, Listings, read_lists
from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import ABSENT, UNFILLED, FeatureRow, Missing, to_microseconds
from conductor_features.views import BUILD_VIEWS, PIPELINE_BUILDS, TENANT_LOAD, TEST_HISTORY, VIEWS, View
from conductor_features.writer import WriteResult, write_rows
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.tailing_writer import TailingWriter
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedRedisCluster
from databases import migrated
from machine import within
from warehouse.catalogue import random_events
from warehouse.histories import events_of, latest_rows, random_history
from warehouse.lists import LISTED, logged_lists, online_lists

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIELDS = len(PIPELINE_BUILDS.fields)
PATIENT = 30.0
Row = tuple[int, bytes]
"""Event time in microseconds, and the bits of the values."""
Asked = tuple[View, tuple[str, ...]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedisCluster]:
    with EmbeddedRedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        for node in cluster.nodes:
            # Else the others give one up that stands still for a second, and tell so when it goes on already.
            with redis.Redis.from_url(node.url) as client:
                client.config_set("cluster-node-timeout", int(PATIENT * 1000))
        yield cluster


@pytest.fixture
def cluster(running: EmbeddedRedisCluster) -> EmbeddedRedisCluster:
    """An empty one."""
    for node in running.nodes:
        flush(node)
    return running


@pytest.fixture(scope="module")
def warehouse_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """A warehouse with a history that no test changes."""
    with migrated(embedded_postgres) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            ingest(connection, events_of(random_history(seed=50, count=80)))
            ingest(connection, [event for event in random_events(21, 100) if b"test.completed" in event])
        yield url


@pytest.fixture(scope="module")
def logged(warehouse_url: str) -> dict[Asked, Row]:
    """Each entity's latest row by the logs."""
    found = {}
    with psycopg.connect(warehouse_url) as connection:
        for view in BUILD_VIEWS:
            for (entity, at), row in sorted(latest_rows(connection, view).items()):
                values = np.array(list(row.values()), dtype=np.float64)
                found[view, entity] = (to_microseconds(at), values.tobytes())
    return found


def flush(node: EmbeddedRedis) -> None:
    with redis.Redis.from_url(node.url) as client:
        client.flushall()


def count_keys(cluster: EmbeddedRedisCluster) -> list[int]:
    counts = []
    for node in cluster.nodes:
        with redis.Redis.from_url(node.url) as client:
            counts.append(int(client.dbsize()))
    return counts


def rows_of(asked: Any, answers: list[FeatureRow | Missing]) -> dict[Asked, Row]:
    """Those that are there."""
    return {
        one: (row.event_time_us, row.values.tobytes())
        for one, row in zip(asked, answers, strict=True)
        if isinstance(row, FeatureRow)
    }


async def read(url: str, asked: Any) -> list[FeatureRow | Missing]:
    """One request, in one round trip of the reader."""
    async with OnlineReader(url, timeout_seconds=PATIENT) as reader:
        await wait_until_connected(reader)
        answers = await reader.read(list(asked))
        assert reader.statistics.exchanges == 1
        return answers


async def wait_until_connected(reader: OnlineReader, seconds: float = PATIENT) -> None:
    async with asyncio.timeout(seconds):
        while not reader.connected:  # noqa: ASYNC110 - connecting is the reader's own affair
            await asyncio.sleep(0.005)


def entity(number: int) -> tuple[str, str, str]:
    # Braces would be a hash tag: the tenant decides, and may write what it likes.
    return "{acme}" if number % 2 else "}{", f"repository-{number}{{}}", "{pipeline"


async def test_the_tailing_writer_fills_all_nodes_and_one_request_reads_them(
    cluster: EmbeddedRedisCluster, warehouse_url: str, logged: dict[Asked, Row]
) -> None:
    unknown = (PIPELINE_BUILDS, ("acme", "no", "such"))
    assert set(await read(cluster.url, [*logged, unknown])) == {UNFILLED}
    TailingWriter(warehouse_url, cluster.url, batch_size=10).catch_up()
    answers = await read(cluster.url, [*logged, unknown])
    assert rows_of(logged, answers[:-1]) == logged and answers[-1] is ABSENT
    assert len({view for view, _ in logged}) > 3
    assert min(count_keys(cluster)) > len(VIEWS)  # a position for each view, and rows


async def test_the_tailing_writer_mends_a_node_that_lost_everything(
    cluster: EmbeddedRedisCluster, warehouse_url: str, logged: dict[Asked, Row]
) -> None:
    unknown = (PIPELINE_BUILDS, ("acme", "no", "such"))
    writer = TailingWriter(warehouse_url, cluster.url)
    writer.catch_up()
    for node in cluster.nodes:
        flush(node)
        answers = await read(cluster.url, [*logged, unknown])
        left = rows_of(logged, answers[:-1])
        assert 0 < len(left) < len(logged) and left.items() < logged.items()
        # Nobody may take a lost row for one that never was.
        assert {answer for answer in answers if isinstance(answer, Missing)} == {UNFILLED}
        writer.catch_up()
        answers = await read(cluster.url, [*logged, unknown])
        assert rows_of(logged, answers[:-1]) == logged and answers[-1] is ABSENT


async def test_a_node_that_fell_back_is_brought_up_again(
    cluster: EmbeddedRedisCluster, warehouse_url: str, logged: dict[Asked, Row]
) -> None:
    """Its replica took over and lacks the last writes, its positions among them; the other nodes have theirs."""
    writer = TailingWriter(warehouse_url, cluster.url)
    writer.catch_up()
    for node in cluster.nodes:
        with redis.Redis.from_url(node.url) as client:
            for key in client.scan_iter():
                if key.startswith(PREFIX):
                    client.delete(key)
                else:
                    client.set(key, b"%b 0 0" % (client.get(key) or b"").split()[0])
        assert 0 < len(rows_of(logged, await read(cluster.url, logged))) < len(logged)
        writer.catch_up()
        assert rows_of(logged, await read(cluster.url, logged)) == logged


def test_materialize_fills_and_rebuilds_what_feast_and_the_server_read(
    cluster: EmbeddedRedisCluster, warehouse_url: str, logged: dict[Asked, Row], tmp_path: Path
) -> None:
    registry = tmp_path / "registry.db"
    environment = {
        "CONDUCTOR_DATABASE_URL": warehouse_url,
        "CONDUCTOR_REDIS_URL": cluster.url,
        "CONDUCTOR_FEAST_REGISTRY": str(registry),
    }

    def materialize() -> None:
        result = CliRunner().invoke(commands, ["materialize", "--rebuild"], env=environment)
        assert result.exit_code == 0, result.output

    def stored() -> dict[Asked, Row]:
        return rows_of(logged, asyncio.run(read(cluster.url, logged)))

    materialize()
    assert stored() == logged
    lists = logged_lists(warehouse_url)
    flush(cluster.nodes[1])
    assert 0 < len(stored()) < len(logged) and 0 < len(online_lists(cluster.url, lists)) < len(lists)
    materialize()
    assert stored() == logged and online_lists(cluster.url, lists) == lists
    store = open_store(warehouse_url, cluster.url, registry)
    apply(store)
    asked = [one for view, one in logged if view is PIPELINE_BUILDS]
    answer = store.get_online_features(
        features=[f"{PIPELINE_BUILDS.key}:{name}" for name in PIPELINE_BUILDS.field_names],
        entity_rows=[dict(zip(PIPELINE_BUILDS.entity, one, strict=True)) for one in asked],
    ).to_dict()
    for place, one in enumerate(asked):
        values = np.array([answer[name][place] for name in PIPELINE_BUILDS.field_names], dtype=np.float64)
        np.testing.assert_array_equal(values, np.frombuffer(logged[PIPELINE_BUILDS, one][1]))
    store.teardown()
    assert count_keys(cluster) == [0, 0, 0]


async def test_lists_are_kept_and_read_across_nodes(cluster: EmbeddedRedisCluster, warehouse_url: str) -> None:
    lists = logged_lists(warehouse_url)
    writer = TailingWriter(warehouse_url, cluster.url)
    async with OnlineReader(cluster.url, timeout_seconds=PATIENT) as reader:
        for view in LISTED:  # the first was never connected
            owners = [owner for key, owner in lists if key == view.key]
            assert await read_lists(reader, view, owners) == [UNFILLED] * len(owners)
            await asyncio.to_thread(writer.catch_up)
            found = await read_lists(reader, view, [*owners, ("acme", "no", "such")[: len(view.listed_by)]])
            assert [set(members) for members in found[:-1] if not isinstance(members, Missing)] == [
                set(lists[view.key, owner]) for owner in owners
            ]
            assert found[-1] == []
            for node in cluster.nodes:
                flush(node)
        await asyncio.to_thread(writer.catch_up)
        of = next(owner for key, owner in lists if key == TEST_HISTORY.key)
        listed = await Listings(reader).get(TEST_HISTORY, of, PATIENT)
        assert isinstance(listed, Listed) and listed.whole
        block = await reader.read_keyed_block(TEST_HISTORY, listed.keys, listed.identities)
        assert listed.members == sorted(lists[TEST_HISTORY.key, of]) and block.ok.all()
        with open_client(cluster.url, PATIENT) as client:
            client.set(listing_key(TEST_HISTORY, of), b"not a list")
            assert (await read_lists(reader, TEST_HISTORY, [of])) == [Missing("corrupt: no list")]
            row = (*of, listed.members[0]), NOW, np.zeros(len(TEST_HISTORY.fields))
            write_rows(client, TEST_HISTORY, [row])
            assert mget(client, position_keys(client, TEST_HISTORY.key)) == [None] * len(cluster.nodes)
        assert await read_lists(reader, TEST_HISTORY, [of]) == [[listed.members[0]]]
        await asyncio.to_thread(writer.catch_up)
        [found_again] = await read_lists(reader, TEST_HISTORY, [of])
        assert not isinstance(found_again, Missing) and set(found_again) == set(listed.members)
        assert reader.statistics.disconnects == 0


async def test_waiting_requests_share_round_trips_and_get_their_own_rows(cluster: EmbeddedRedisCluster) -> None:
    with open_client(cluster.url, PATIENT) as client:
        rows = [(entity(number), NOW, np.full(FIELDS, float(number))) for number in range(600)]
        assert write_rows(client, PIPELINE_BUILDS, rows) == WriteResult(600, 0)
        late = [(one, NOW - timedelta(days=1), values) for one, _, values in rows]
        assert write_rows(client, PIPELINE_BUILDS, late) == WriteResult(0, 600)
        corrupt = entity_key(PIPELINE_BUILDS.key, entity(1))
        client.setrange(corrupt, 30, b"\x7f")  # an event time far in the future
        assert write_rows(client, PIPELINE_BUILDS, [(one, NOW, values) for one, _, values in rows[:2]]).written == 2
        client.setrange(entity_key(PIPELINE_BUILDS.key, entity(0)), 60, b"\xff")
    async with OnlineReader(cluster.url, timeout_seconds=PATIENT) as reader:
        await wait_until_connected(reader)
        asked = [[(PIPELINE_BUILDS, entity(number)), (PIPELINE_BUILDS, entity(number + 1))] for number in range(1, 599)]
        answers = await asyncio.gather(*map(reader.read, asked))
        for number, pair in enumerate(answers, start=1):
            assert [row.values[0] for row in pair if isinstance(row, FeatureRow)] == [number, number + 1]
        assert 1 < reader.statistics.exchanges < 20
        values, _, ok = await reader.read_block(PIPELINE_BUILDS, [entity(number) for number in range(601)])
        assert ok.tolist() == [False, *[True] * 599, False] and values[1:600, 0].tolist() == list(range(1, 600))
        assert (reader.statistics.corrupt, reader.statistics.disconnects) == (1, 0)


async def test_a_view_is_filled_when_it_is_on_every_node(cluster: EmbeddedRedisCluster) -> None:
    asked = [(TENANT_LOAD, ("acme",))]
    with open_client(cluster.url, PATIENT) as client:
        keys = position_keys(client, TENANT_LOAD.key)
        assert len(keys) == len(cluster.nodes)
        for key in keys:
            assert await read(cluster.url, asked) == [UNFILLED]
            client.set(key, b"epoch 7 1")
        assert [int(count) for count in count_keys(cluster)] == [1, 1, 1]
        assert await read(cluster.url, asked) == [ABSENT]
        client.set(keys[1], replaying_mark())
        assert await read(cluster.url, asked) == [UNFILLED]
        async with OnlineReader(cluster.url, timeout_seconds=PATIENT) as reader:
            assert await reader.read(asked) == [UNFILLED]  # asked before it was ever connected
        assert mget(client, [keys[2], b"nothing"]) == [b"epoch 7 1", None]


async def test_a_killed_node_is_told_within_the_deadline_and_found_again(
    cluster: EmbeddedRedisCluster, warehouse_url: str, logged: dict[Asked, Row]
) -> None:
    timeout_seconds = 0.2
    writer = TailingWriter(warehouse_url, cluster.url)
    writer.catch_up()
    async with OnlineReader(cluster.url, PATIENT) as reader:
        await wait_until_connected(reader)
        assert rows_of(logged, await reader.read(list(logged))) == logged
        reader._timeout_seconds = timeout_seconds
        cluster.nodes[0].kill()  # the first that the URL names
        try:
            for attempt in range(20):
                started = time.monotonic()
                # The first learns the reason at once, others when the reconnect has failed or the time is over.
                with pytest.raises(OnlineStoreUnavailable, match="Redis: " if attempt == 0 else "Redis"):
                    await reader.read(list(logged))
                assert within(time.monotonic() - started, timeout_seconds + 0.1)
                await asyncio.sleep(0.01)
            assert not reader.connected
            with pytest.raises(FAILURES):
                writer.catch_up()
        finally:
            cluster.nodes[0].start()  # not in a thread of the test's: the node would end with it
        reader._timeout_seconds = PATIENT  # it is there again; a busy machine may still be slow
        # For some time it answers, but serves nothing.
        await wait_until_connected(reader)
        assert 0 < len(rows_of(logged, await reader.read(list(logged)))) < len(logged)
        await asyncio.to_thread(writer.catch_up)
        assert rows_of(logged, await reader.read(list(logged))) == logged


async def test_a_frozen_node_costs_the_timeout_then_nothing(
    cluster: EmbeddedRedisCluster, warehouse_url: str, logged: dict[Asked, Row]
) -> None:
    TailingWriter(warehouse_url, cluster.url).catch_up()
    async with OnlineReader(cluster.url, timeout_seconds=0.2) as reader:
        await wait_until_connected(reader)
        os.kill(cluster.nodes[1].pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(OnlineStoreUnavailable, match="did not answer in time"):
                await reader.read(list(logged))
            assert within(time.monotonic() - started, 0.3)
            async with asyncio.timeout(PATIENT):
                while not reader.statistics.refused:  # once the reconnect has failed
                    with pytest.raises(OnlineStoreUnavailable):
                        await reader.read(list(logged))
        finally:
            os.kill(cluster.nodes[1].pid, signal.SIGCONT)
        reader._timeout_seconds = PATIENT  # that it was frozen is over; a busy machine may still be slow
        await wait_until_connected(reader)
        assert rows_of(logged, await reader.read(list(logged))) == logged


async def test_any_node_that_the_url_names_will_do(cluster: EmbeddedRedisCluster) -> None:
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}"
    with open_client(url, PATIENT) as client:
        write_rows(client, TENANT_LOAD, [(("acme",), NOW, [4.0, None])])
    assert len(rows_of([TENANT_LOAD], await read(url, [(TENANT_LOAD, ("acme",))]))) == 1
    with pytest.raises(FAILURES):
        open_client("redis+cluster://127.0.0.1:1", PATIENT)


def test_a_url_says_that_it_is_a_cluster() -> None:
    assert cluster_of("redis://a:1/0") is cluster_of("unix:///a?x=redis+cluster://b") is None
    assert cluster_of("redis+cluster://a") == ("redis://a", [("a", 6379)])
    url, nodes = cluster_of("rediss+cluster://user:p%2Cw@a:1,[::1]:2/0?ssl_cert_reqs=none") or ("", [])
    assert url == "rediss://user:p%2Cw@a:1/0?ssl_cert_reqs=none"
    assert nodes == [("a", 1), ("::1", 2)]
    for wrong in ("redis+cluster://", "redis+cluster://a:1,", "redis+cluster://a:b"):
        with pytest.raises(ValueError, match=r"host|[Pp]ort"):
            OnlineReader(wrong)
