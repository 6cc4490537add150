"""Lists of entities on a real Redis: kept by the writer, read and remembered for requests, mended when they break."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conductor_features.blocks import RowState
from conductor_features.filling import position_key, replaying_mark
from conductor_features.keyed import keyed
from conductor_features.keys import entity_key, identity, parse_key
from conductor_features.list_reading import ListState
from conductor_features.listing import identities_of, listing_key, member_keys
from conductor_features.listings import UNAVAILABLE, Listed, Listings, _Held, read_lists
from conductor_features.reader import OnlineReader
from conductor_features.rows import ABSENT, UNFILLED, Missing
from conductor_features.views import PIPELINE_BUILDS, TEST_HISTORY, TEST_PATH_AFFINITY, View
from conductor_features.writer import write_rows
from conductor_workbench.embedded import EmbeddedRedis

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 2, 29, tzinfo=UTC)
OWNER = ("acme", "octocat/app")
FIELDS = len(TEST_HISTORY.fields)
FILLED = b"epoch+lists 7 1"
PATIENT = 15.0
"""Seconds; a busy machine may stand still for some."""
SELDOM = 1e6
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
async def loader(redis_url: str) -> AsyncIterator[OnlineReader]:
    async with OnlineReader(redis_url, timeout_seconds=PATIENT) as reader:
        yield reader


def write_tests(client: redis.Redis, tests: Sequence[str], at: datetime = NOW, owner: tuple[str, str] = OWNER) -> None:
    write_rows(client, TEST_HISTORY, [((*owner, test), at, np.full(FIELDS, n)) for n, test in enumerate(tests)])


def fill(client: redis.Redis, view: View = TEST_HISTORY) -> None:
    client.set(position_key(view.key), FILLED)


def scores(client: redis.Redis, view: View, owner: tuple[str, ...]) -> dict[str, float]:
    return {member.decode(): score for member, score in client.zrange(listing_key(view, owner), 0, -1, withscores=True)}


def members(found: Listed | Missing) -> list[str]:
    assert isinstance(found, Listed), found
    return list(found.members)


@given(view=st.sampled_from([TEST_HISTORY, TEST_PATH_AFFINITY]), data=st.data())
def test_keys_of_members_are_those_of_their_rows_and_no_lists(view: View, data: st.DataObject) -> None:
    owner = data.draw(st.tuples(*[texts] * len(view.listed_by)))
    names = data.draw(st.lists(texts, max_size=5, unique=True))
    entities = [
        tuple(dict(zip(view.listed_by, owner, strict=True)).get(name, member) for name in view.entity)
        for member in names
    ]
    keys = member_keys(view, owner, names)
    assert keys == [entity_key(view.key, entity) for entity in entities]
    assert [bytes(one) for one in identities_of(keys)] == [identity(key) for key in keys]
    of_list = listing_key(view, owner)
    assert parse_key(of_list) == (view.key, owner) and of_list not in keys
    assert of_list.startswith(entity_key(view.key, owner[:1]))  # the ACL of a tenant


def test_a_view_is_listed_by_all_join_keys_but_one() -> None:
    for wrong in (
        ("repository",),
        ("repository", "tenant_id"),
        ("tenant_id",),
        ("tenant_id", "repository", "test_id"),
        ("tenant_id", "x"),
    ):
        with pytest.raises(ValueError, match="listed by"):
            replace(TEST_HISTORY, listed_by=wrong)
    for view, owner in ((PIPELINE_BUILDS, ("acme",)), (TEST_HISTORY, ("acme",)), (TEST_HISTORY, ("acme", "a", "b"))):
        with pytest.raises(ValueError, match="is listed by"):
            listing_key(view, owner)


_FEW = st.sampled_from(["t", "ü", "1:t"])
_ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), _FEW, st.integers(0, 5)), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows=_ROWS, cuts=st.lists(st.integers(0, 12), max_size=3), seed=st.integers(0, 9))
def test_lists_hold_what_was_written_in_whatever_order_and_how_often(
    client: redis.Redis, rows: list[tuple[str, str, str, int]], cuts: list[int], seed: int
) -> None:
    client.flushdb()
    written = [*rows, *random.Random(seed).sample(rows, len(rows) // 2)]  # some twice
    bounds = sorted({0, len(written), *(cut for cut in cuts if cut < len(written))})
    values = np.zeros(len(TEST_PATH_AFFINITY.fields))
    for begin, end in itertools.pairwise(bounds):
        batch = [
            ((t, "r", test, path), NOW + timedelta(seconds=at), values) for t, path, test, at in written[begin:end]
        ]
        write_rows(client, TEST_PATH_AFFINITY, batch)
    expected: dict[tuple[str, ...], dict[str, float]] = {}
    for tenant, path, test, at in rows:
        of = expected.setdefault((tenant, "r", path), {})
        of[test] = max(of.get(test, 0.0), NOW.timestamp() + at)
    lists = {parse_key(key)[1] for key in client.scan_iter() if client.type(key) == b"zset"}
    assert lists == expected.keys()
    assert {owner: scores(client, TEST_PATH_AFFINITY, owner) for owner in lists} == expected


def test_views_without_lists_have_none(client: redis.Redis) -> None:
    write_rows(client, PIPELINE_BUILDS, [(("acme", "r", "ci"), NOW, np.zeros(len(PIPELINE_BUILDS.fields)))])
    assert client.dbsize() == 1


def test_what_is_no_list_is_replaced_and_the_view_counts_as_not_filled(client: redis.Redis) -> None:
    fill(client)
    write_tests(client, ["a"])
    assert client.get(position_key(TEST_HISTORY.key)) == FILLED
    client.set(listing_key(TEST_HISTORY, OWNER), b"not a list")
    write_tests(client, ["b", "c"])
    assert scores(client, TEST_HISTORY, OWNER) == dict.fromkeys("bc", NOW.timestamp())
    assert not client.exists(position_key(TEST_HISTORY.key))  # else nobody would bring the others back


def test_a_late_row_makes_nobody_older(client: redis.Redis) -> None:
    for days in (1, 2, 0):
        write_tests(client, ["a"], NOW + timedelta(days=days))
    assert scores(client, TEST_HISTORY, OWNER) == {"a": (NOW + timedelta(days=2)).timestamp()}


def test_a_long_list_is_written_in_parts(client: redis.Redis) -> None:
    names = [f"test-{n}" for n in range(4_500)]
    write_tests(client, names)
    assert scores(client, TEST_HISTORY, OWNER).keys() == set(names)


async def test_the_first_request_waits_and_gets_what_reading_needs(client: redis.Redis, loader: OnlineReader) -> None:
    names = [f"tests/übung_{n % 7}.py::test_{n}" for n in range(3_000)]
    write_tests(client, names)
    fill(client)
    listed = await Listings(loader).get(TEST_HISTORY, OWNER, PATIENT)
    assert isinstance(listed, Listed) and listed.members == sorted(names) and listed.whole and not listed.cut
    assert listed.index == {name: at for at, name in enumerate(listed.members)}
    write_rows(client, TEST_HISTORY, [((*OWNER, listed.members[9]), NOW, np.full(FIELDS, -1.0))])
    block = await loader.read_keyed_block(TEST_HISTORY, listed.keys, listed.identities)
    assert block.ok.all() and len(block) == len(names)
    expected = np.array([names.index(name) for name in listed.members], float)
    expected[9] = -1.0
    assert (block.values == expected[:, None]).all()
    assert set(block.event_time_us.tolist()) == {int(NOW.timestamp()) * 1_000_000}


async def test_a_block_tells_absent_from_corrupt_from_not_filled(client: redis.Redis, loader: OnlineReader) -> None:
    names = ["ok", "absent", "flipped", "cut", "another's", "too long"]
    write_tests(client, [name for name in names if name != "absent"])
    found = keyed(TEST_HISTORY, OWNER, names)
    stored = dict(zip(names, found.keys, strict=True))
    client.setrange(stored["flipped"], 100, b"\xff")
    client.set(stored["cut"], (client.get(stored["cut"]) or b"")[:-8])
    client.set(stored["another's"], client.get(stored["ok"]) or b"")
    client.append(stored["too long"], b"\0")
    for position, nothing in (
        (None, "UNFILLED"),
        (replaying_mark(), "UNFILLED"),
        (b"epoch 7 1", "ABSENT"),
        (FILLED, "ABSENT"),
    ):
        if position is not None:
            client.set(position_key(TEST_HISTORY.key), position)
        block = await loader.read_keyed_block(TEST_HISTORY, found.keys, found.identities)
        assert [RowState(state).name for state in block.state] == ["OK", nothing, *["CORRUPT"] * 4]
        assert block.ok.tolist() == [True] + [False] * 5
        assert (
            not np.isnan(block.values[0]).any()
            and np.isnan(block.values[1:]).all()
            and not block.event_time_us[1:].any()
        )
    assert (loader.statistics.absent, loader.statistics.corrupt) == (4, 16)
    for reader in (loader, OnlineReader("redis+cluster://127.0.0.1:1")):  # which was never connected
        none = await reader.read_keyed_block(TEST_HISTORY, [], identities_of([]))
        assert len(none) == 0 and none.values.shape == (0, FIELDS)


async def test_a_list_is_read_anew_beside_the_requests(client: redis.Redis, loader: OnlineReader) -> None:
    write_tests(client, ["a", "c"])
    fill(client)
    listings = Listings(loader, refresh_seconds=0)
    first = await listings.get(TEST_HISTORY, OWNER, PATIENT)
    await listings.get(TEST_HISTORY, OWNER, PATIENT)
    await listings.settle()
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is first  # nothing changed
    await listings.settle()
    write_tests(client, ["b"])
    async with asyncio.timeout(60):
        while await listings.get(TEST_HISTORY, OWNER, 0.0) is first:
            await listings.settle()
    second = await listings.get(TEST_HISTORY, OWNER, 0.0)
    assert members(second) == ["a", "b", "c"] and isinstance(first, Listed) and isinstance(second, Listed)
    assert second.keys == member_keys(TEST_HISTORY, OWNER, "abc")
    assert (second.identities == identities_of(second.keys)).all()
    assert second.keys[0] is first.keys[0] and second.keys[2] is first.keys[1]
    await listings.close()


async def test_a_young_list_is_not_read_again(client: redis.Redis, loader: OnlineReader) -> None:
    write_tests(client, ["a"])
    fill(client)
    listings = Listings(loader, refresh_seconds=SELDOM)
    first = await listings.get(TEST_HISTORY, OWNER, PATIENT)
    reads = loader.statistics.reads
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is first
    await listings.settle()
    assert loader.statistics.reads == reads


async def test_the_newest_are_held_and_the_old_left_out(client: redis.Redis, loader: OnlineReader) -> None:
    fill(client)
    for age, name in enumerate(["new", "fresh", "older", "oldest"]):
        write_tests(client, [name], LONG_AGO - timedelta(days=40 * age))
    names = ["fresh", "new", "older"]  # 80 days before the list's newest, whenever that was
    listed = await Listings(loader).get(TEST_HISTORY, OWNER, PATIENT)
    assert members(listed) == names and isinstance(listed, Listed) and not listed.cut
    listed = await Listings(loader, most_members=3).get(TEST_HISTORY, OWNER, PATIENT)
    assert members(listed) == names and isinstance(listed, Listed) and not listed.cut
    listed = await Listings(loader, most_members=2).get(TEST_HISTORY, OWNER, PATIENT)
    assert members(listed) == ["fresh", "new"] and isinstance(listed, Listed) and listed.cut
    # A clock that is years ahead must not make everything else old.
    write_tests(client, ["now"], datetime.now(UTC))
    write_tests(client, ["ahead"], datetime.now(UTC) + timedelta(days=3_000))
    assert {"now", "ahead"} <= set(members(await Listings(loader).get(TEST_HISTORY, OWNER, PATIENT)))


async def test_no_list_is_told_from_one_that_is_not_here_yet(client: redis.Redis, loader: OnlineReader) -> None:
    listings = Listings(loader, refresh_seconds=0)
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is UNFILLED
    client.set(position_key(TEST_HISTORY.key), b"epoch 7 1")  # by a writer that knew no lists
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is UNFILLED
    fill(client)
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is ABSENT
    client.set(listing_key(TEST_HISTORY, OWNER), b"not a list")
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) == Missing("corrupt: no list")
    with pytest.raises(ValueError, match="is listed by"):
        await listings.get(TEST_HISTORY, ("acme",), PATIENT)


async def test_while_redis_is_filled_what_was_known_stays(client: redis.Redis, loader: OnlineReader) -> None:
    write_tests(client, ["a", "b"])
    fill(client)
    listings = Listings(loader, refresh_seconds=0)
    first = await listings.get(TEST_HISTORY, OWNER, PATIENT)
    client.flushdb()
    await listings.get(TEST_HISTORY, OWNER, PATIENT)
    await listings.settle()
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is first
    client.set(position_key(TEST_HISTORY.key), replaying_mark())
    write_tests(client, ["b", "c"])
    await listings.settle()
    await listings.get(TEST_HISTORY, OWNER, PATIENT)
    await listings.settle()
    found = await listings.get(TEST_HISTORY, OWNER, PATIENT)
    assert members(found) == ["a", "b", "c"] and isinstance(found, Listed) and not found.whole
    await listings.settle()
    fill(client)  # and "a" was not in it
    await listings.get(TEST_HISTORY, OWNER, PATIENT)
    await listings.settle()
    found = await listings.get(TEST_HISTORY, OWNER, PATIENT)
    assert members(found) == ["b", "c"] and isinstance(found, Listed) and found.whole
    await listings.settle()
    client.delete(listing_key(TEST_HISTORY, OWNER))
    await listings.get(TEST_HISTORY, OWNER, PATIENT)
    await listings.settle()
    assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is ABSENT
    await listings.close()


async def test_without_redis_what_is_held_goes_on_and_nothing_raises(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        write_tests(client, ["a"])
        fill(client)
    async with OnlineReader(own_redis.url, timeout_seconds=PATIENT) as loader:
        listings = Listings(loader, refresh_seconds=0)
        first = await listings.get(TEST_HISTORY, OWNER, PATIENT)
        assert members(first) == ["a"]
        own_redis.kill()
        for _ in range(3):
            assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is first
            await listings.settle()
        began = time.monotonic()
        assert await listings.get(TEST_HISTORY, ("acme", "another"), PATIENT) is UNAVAILABLE
        assert time.monotonic() - began < PATIENT
        own_redis.start()
        async with asyncio.timeout(60):
            while await listings.get(TEST_HISTORY, ("acme", "another"), PATIENT) is not UNFILLED:  # noqa: ASYNC110 - so does the reader
                await asyncio.sleep(0.02)
        assert await listings.get(TEST_HISTORY, OWNER, PATIENT) is first
        await listings.close()


async def test_a_cancelled_request_leaves_the_reading_to_others(client: redis.Redis, loader: OnlineReader) -> None:
    write_tests(client, ["a"])
    fill(client)
    listings = Listings(loader)
    asking = [asyncio.ensure_future(listings.get(TEST_HISTORY, OWNER, PATIENT)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert [members(found) for found in await asyncio.gather(*asking[1:])] == [["a"], ["a"]]
    assert loader.statistics.reads == 2  # the list's state, then the list; for all of them
    assert (await Listings(loader).get(TEST_HISTORY, OWNER, 0.0)) == Missing("loading")


async def test_the_least_recently_used_is_dropped(client: redis.Redis, loader: OnlineReader) -> None:
    fill(client)
    for name in "abc":
        write_tests(client, [f"{name}{n}" for n in range(10)], owner=("acme", name))
    one = await Listings(loader).get(TEST_HISTORY, ("acme", "a"), PATIENT)
    assert isinstance(one, Listed)
    listings = Listings(loader, refresh_seconds=SELDOM, byte_count=2 * one.byte_count)
    first = {name: await listings.get(TEST_HISTORY, ("acme", name), PATIENT) for name in "ab"}
    assert await listings.get(TEST_HISTORY, ("acme", "a"), PATIENT) is first["a"]
    await listings.get(TEST_HISTORY, ("acme", "c"), PATIENT)
    assert await listings.get(TEST_HISTORY, ("acme", "a"), PATIENT) is first["a"]
    assert await listings.get(TEST_HISTORY, ("acme", "b"), PATIENT) is not first["b"]


async def test_lists_of_many_paths_come_in_one_round_trip(client: redis.Redis, loader: OnlineReader) -> None:
    values = np.zeros(len(TEST_PATH_AFFINITY.fields))
    rows = [(("acme", "r", f"t{n}", path), NOW + timedelta(seconds=n), values) for path in ("p", "q") for n in range(4)]
    write_rows(client, TEST_PATH_AFFINITY, rows[:-1])
    client.set(listing_key(TEST_PATH_AFFINITY, ("acme", "r", "broken")), b"x")
    client.zadd(listing_key(TEST_PATH_AFFINITY, ("acme", "r", "q")), {b"\xff": 1e10})  # not of our writing
    owners = [("acme", "r", path) for path in ("q", "none", "broken", "p")]
    assert (await read_lists(loader, TEST_PATH_AFFINITY, owners))[1] is UNFILLED
    fill(client, TEST_PATH_AFFINITY)
    exchanges = loader.statistics.exchanges
    found = await read_lists(loader, TEST_PATH_AFFINITY, owners, limit_each=3)
    assert found == [["t2", "t1"], [], Missing("corrupt: no list"), ["t3", "t2", "t1"]]
    assert loader.statistics.exchanges == exchanges + 1
    assert await read_lists(loader, TEST_PATH_AFFINITY, []) == []
    # What reads of rows and of lists share a round trip gets its own.
    row, lists = await asyncio.gather(
        loader.read([(TEST_HISTORY, ("acme", "r", "t"))]), read_lists(loader, TEST_PATH_AFFINITY, owners[-1:], 1)
    )
    assert row == [UNFILLED] and lists == [["t3"]] and loader.statistics.exchanges == exchanges + 2


async def test_a_list_costs_the_same_however_many_are_held(loader: OnlineReader) -> None:
    def seconds(count: int) -> float:
        listings = Listings(loader)
        none = np.zeros((0, 16), np.uint8)
        held = [_Held(Listed([], {}, [], none, cut=False, whole=True), ListState(0.0, 0, whole=True))] * 300
        for number in range(count):
            listings._hold(("view", (str(number),)), held[0])
        began = time.process_time()
        for one in held:
            listings._hold(("view", ("0",)), one)
        return time.process_time() - began

    assert seconds(10_000) < 20 * seconds(100)
