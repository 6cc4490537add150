"""Writer and reader on a real Redis: order, sharing, cancellation, decay and outages."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import redis
import uvloop

from conductor_features import shared_connection
from conductor_features.filling import position_key, replaying_mark
from conductor_features.keys import entity_key
from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import ABSENT, UNFILLED, FeatureRow, Missing
from conductor_features.views import PIPELINE_BUILDS, TENANT_LOAD
from conductor_features.writer import WriteResult, write_rows
from conductor_workbench.embedded import EmbeddedRedis
from machine import within

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIELDS = len(PIPELINE_BUILDS.fields)
PATIENT = 30.0


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
async def reader(redis_url: str) -> AsyncIterator[OnlineReader]:
    async with OnlineReader(redis_url, timeout_seconds=PATIENT) as reader:
        yield reader


def entity(number: int) -> tuple[str, str, str]:
    return "acme", "repository", f"pipeline-{number}"


def fill(client: redis.Redis, count: int) -> None:
    write_rows(client, PIPELINE_BUILDS, [(entity(n), NOW, np.full(FIELDS, float(n))) for n in range(count)])


def row_of(answer: FeatureRow | Missing) -> FeatureRow:
    assert isinstance(answer, FeatureRow), answer
    return answer


async def wait_until_connected(reader: OnlineReader, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not reader.connected:  # noqa: ASYNC110 - connecting is the reader's own affair
            await asyncio.sleep(0.005)


async def test_rows_of_several_views_come_in_order(client: redis.Redis, reader: OnlineReader) -> None:
    fill(client, 3)
    write_rows(client, TENANT_LOAD, [(("acme",), NOW, [4.0, None])])
    client.set(position_key(TENANT_LOAD.key), b"epoch 7 1")
    answers = await reader.read(
        [
            (PIPELINE_BUILDS, entity(2)),
            (TENANT_LOAD, ("acme",)),
            (TENANT_LOAD, ("team-acme",)),
            (PIPELINE_BUILDS, entity(1)),
        ]
    )
    assert row_of(answers[0]).values.tolist() == [2.0] * FIELDS
    load = row_of(answers[1])
    assert load.event_time == NOW and load.values[0] == 4.0 and math.isnan(load.values[1])
    assert abs(load.written_time_us / 1e6 - time.time()) < 60
    assert answers[2] is ABSENT
    assert row_of(answers[3]).values.tolist() == [1.0] * FIELDS
    assert reader.statistics.exchanges == 1 and reader.statistics.absent == 1


async def test_no_request_needs_no_redis(reader: OnlineReader) -> None:
    assert await reader.read([]) == []
    values, event_times, ok = await reader.read_block(PIPELINE_BUILDS, [])
    assert values.shape == (0, FIELDS) and event_times.shape == ok.shape == (0,)
    assert reader.statistics.exchanges == 0


async def test_an_entity_of_another_view_is_refused(reader: OnlineReader) -> None:
    with pytest.raises(ValueError, match=r"pipeline_builds_v1 is of \(tenant_id, repository, pipeline\)"):
        await reader.read([(PIPELINE_BUILDS, ("acme",))])


async def test_waiting_requests_share_a_round_trip(client: redis.Redis, reader: OnlineReader) -> None:
    fill(client, 50)
    await wait_until_connected(reader)
    answers = await asyncio.gather(*(reader.read([(PIPELINE_BUILDS, entity(n))]) for n in range(50)))
    assert [row_of(rows[0]).values[0] for rows in answers] == list(range(50))
    assert reader.statistics.exchanges == 1


async def test_many_keys_are_asked_for_in_several_commands(client: redis.Redis, reader: OnlineReader) -> None:
    fill(client, 5_000)
    wanted = [entity(n) for n in range(5_001)]
    values, event_times, ok = await reader.read_block(PIPELINE_BUILDS, wanted)
    assert ok[:5_000].all() and not ok[5_000] and np.isnan(values[5_000]).all()
    assert (values[:5_000, -1] == np.arange(5_000)).all()
    assert set(event_times[:5_000].tolist()) == {int(NOW.timestamp()) * 1_000_000}


async def test_a_changed_value_is_missing_and_counted(client: redis.Redis, reader: OnlineReader) -> None:
    fill(client, 4)
    keys = [entity_key(PIPELINE_BUILDS.key, entity(n)) for n in range(4)]
    client.setrange(keys[0], 60, b"\xff")
    client.set(keys[1], client.get(keys[3]) or b"")
    client.set(keys[2], (client.get(keys[2]) or b"")[:-1])
    wanted = [entity(n) for n in range(4)]
    answers = await reader.read([(PIPELINE_BUILDS, one) for one in wanted])
    reasons = ["corrupt: checksum differs", "corrupt: belongs to another key", "corrupt: checksum differs"]
    assert answers[:3] == [Missing(reason) for reason in reasons]
    assert row_of(answers[3]).values[0] == 3.0
    _, _, ok = await reader.read_block(PIPELINE_BUILDS, wanted)
    assert ok.tolist() == [False, False, False, True]
    assert reader.statistics.corrupt == 6


async def test_a_key_of_another_type_is_absent(client: redis.Redis, reader: OnlineReader) -> None:
    client.rpush(entity_key(PIPELINE_BUILDS.key, entity(0)), b"x")
    client.set(position_key(PIPELINE_BUILDS.key), b"epoch 7 1")
    assert await reader.read([(PIPELINE_BUILDS, entity(0))]) == [ABSENT]


async def test_absent_is_said_only_of_views_that_are_filled(client: redis.Redis, reader: OnlineReader) -> None:
    fill(client, 1)
    asked = [(PIPELINE_BUILDS, entity(0)), (PIPELINE_BUILDS, entity(1)), (TENANT_LOAD, ("acme",))]

    async def absent() -> list[FeatureRow | Missing]:
        first, *others = await reader.read(asked)
        assert row_of(first).values[0] == 0.0
        return others

    assert await absent() == [UNFILLED, UNFILLED]
    client.set(position_key(PIPELINE_BUILDS.key), replaying_mark())
    client.set(position_key(TENANT_LOAD.key), b"epoch 7 1")
    assert await absent() == [UNFILLED, ABSENT]
    client.set(position_key(PIPELINE_BUILDS.key), b"epoch 7 1")
    assert await absent() == [ABSENT, ABSENT]


async def test_the_later_event_time_wins_whatever_the_order(client: redis.Redis, reader: OnlineReader) -> None:
    generator = random.Random(7)
    history = [
        (entity(generator.randrange(20)), NOW + timedelta(microseconds=generator.randrange(50))) for _ in range(2_000)
    ]
    expected: dict[tuple[str, str, str], tuple[datetime, int]] = {}
    for number, (one, moment) in enumerate(history):
        if one not in expected or moment >= expected[one][0]:
            expected[one] = moment, number
    rows = [(one, moment, np.full(FIELDS, float(n))) for n, (one, moment) in enumerate(history)]
    for start in range(0, len(rows), 300):
        result = write_rows(client, PIPELINE_BUILDS, rows[start : start + 300])
        assert result.written + result.superseded == len(rows[start : start + 300])
    for one, (moment, number) in expected.items():
        row = row_of((await reader.read([(PIPELINE_BUILDS, one)]))[0])
        assert (row.event_time, row.values[0]) == (moment, number)


def test_writing_tells_what_it_did(client: redis.Redis) -> None:
    def write(*seconds: int) -> WriteResult:
        rows = [(entity(0), NOW + timedelta(seconds=second), np.zeros(FIELDS)) for second in seconds]
        return write_rows(client, PIPELINE_BUILDS, rows)

    assert write(5, 3, 5) == WriteResult(written=1, superseded=2)
    assert write(4) == WriteResult(written=0, superseded=1)
    assert write(5) == WriteResult(written=1, superseded=0)
    assert client.ttl(entity_key(PIPELINE_BUILDS.key, entity(0))) == -1
    assert write() == WriteResult(0, 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((("acme",), NOW, np.zeros(FIELDS)), "1 join keys"),
        ((entity(0), NOW, np.zeros(FIELDS + 1)), "values instead of"),
        ((entity(0), NOW.replace(tzinfo=None), np.zeros(FIELDS)), "no time zone"),
        ((("", "r", "p"), NOW, np.zeros(FIELDS)), "tenant"),
    ],
)
def test_a_row_that_is_not_of_the_view_is_refused(
    client: redis.Redis, row: tuple[tuple[str, ...], datetime, np.ndarray], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        write_rows(client, PIPELINE_BUILDS, [(entity(1), NOW, np.zeros(FIELDS)), row])
    assert client.dbsize() == 0


async def test_a_corrupt_value_is_replaced_even_by_an_older_row(client: redis.Redis, reader: OnlineReader) -> None:
    fill(client, 1)
    key = entity_key(PIPELINE_BUILDS.key, entity(0))
    client.setrange(key, 30, b"\x7f")  # an event time far in the future
    assert write_rows(client, PIPELINE_BUILDS, [(entity(0), NOW - timedelta(days=1), np.ones(FIELDS))]).written == 1
    assert row_of((await reader.read([(PIPELINE_BUILDS, entity(0))]))[0]).values[0] == 1.0
    client.set(key, b"\x00" * 7)
    assert write_rows(client, PIPELINE_BUILDS, [(entity(0), NOW, np.ones(FIELDS))]).written == 1


async def test_a_storm_of_cancellations_gives_no_reply_to_the_wrong_caller(client: redis.Redis, redis_url: str) -> None:
    fill(client, 200)
    generator = random.Random(1)
    wrong = cancelled = answered = 0

    async def ask(reader: OnlineReader) -> None:
        nonlocal wrong, answered
        numbers = [generator.randrange(200) for _ in range(generator.randrange(1, 5))]
        rows = await reader.read([(PIPELINE_BUILDS, entity(n)) for n in numbers])
        answered += 1
        wrong += [row_of(row).values[0] for row in rows] != numbers

    async with OnlineReader(redis_url, timeout_seconds=PATIENT) as reader:
        while min(cancelled, answered) < 3_000:
            tasks = [asyncio.create_task(ask(reader)) for _ in range(100)]
            for task in generator.sample(tasks, 40):
                if generator.random() < 0.7:
                    await asyncio.sleep(0)
                cancelled += task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
        assert reader.statistics.disconnects == 0
    assert wrong == 0


async def test_a_frozen_redis_costs_the_timeout_then_nothing(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        fill(client, 1)
    async with OnlineReader(own_redis.url, timeout_seconds=0.2) as reader:
        await wait_until_connected(reader)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            answers = await asyncio.gather(
                *(reader.read([(PIPELINE_BUILDS, entity(0))]) for _ in range(50)), return_exceptions=True
            )
            assert all(isinstance(answer, OnlineStoreUnavailable) for answer in answers)
            assert time.monotonic() - started < 5.0, "all of them together, not one after the other"
            async with asyncio.timeout(60):
                while not reader.statistics.refused:  # once the reconnect has failed
                    with pytest.raises(OnlineStoreUnavailable):
                        await reader.read([(PIPELINE_BUILDS, entity(0))])
            with pytest.raises(OnlineStoreUnavailable):
                await reader.read([(PIPELINE_BUILDS, entity(0))])
            assert reader.statistics.refused == 2, "at once, as it says"
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        reader._timeout_seconds = PATIENT  # that it was frozen is over; a busy machine may still be slow
        await wait_until_connected(reader)
        assert row_of((await reader.read([(PIPELINE_BUILDS, entity(0))]))[0]).values[0] == 0.0
        assert reader.statistics.timeouts == 1


async def test_a_late_reply_is_never_taken_for_the_next(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        fill(client, 100)
    async with OnlineReader(own_redis.url, timeout_seconds=0.05) as reader:
        await wait_until_connected(reader)
        failed = 0
        for number in range(100):
            if number % 10 == 0:
                os.kill(own_redis.pid, signal.SIGSTOP)
                asyncio.get_running_loop().call_later(0.1, os.kill, own_redis.pid, signal.SIGCONT)
            try:
                row = row_of((await reader.read([(PIPELINE_BUILDS, entity(number))]))[0])
            except OnlineStoreUnavailable:
                failed += 1
                await asyncio.sleep(0.05)
                await wait_until_connected(reader)
                continue
            assert row.values[0] == number
        assert 5 <= failed <= 60


async def test_a_killed_redis_is_told_at_once_and_found_again(own_redis: EmbeddedRedis) -> None:
    async with OnlineReader(own_redis.url, timeout_seconds=20) as reader:
        await wait_until_connected(reader)
        own_redis.kill()
        for _ in range(20):
            started = time.monotonic()
            with pytest.raises(OnlineStoreUnavailable):
                await reader.read([(PIPELINE_BUILDS, entity(0))])
            assert time.monotonic() - started < 10
            await asyncio.sleep(0.01)
        assert not reader.connected
        await asyncio.to_thread(own_redis.start)
        started = time.monotonic()
        await wait_until_connected(reader)
        assert within(time.monotonic() - started, 1.0)
        with redis.Redis.from_url(own_redis.url) as client:
            fill(client, 1)  # Redis lost the write script too
        assert row_of((await reader.read([(PIPELINE_BUILDS, entity(0))]))[0]).values[0] == 0.0


async def test_an_idle_loss_is_noticed_without_a_request(own_redis: EmbeddedRedis) -> None:
    async with OnlineReader(own_redis.url) as reader:
        await wait_until_connected(reader)
        own_redis.kill()
        async with asyncio.timeout(60):
            while reader.connected:  # noqa: ASYNC110 - noticing is the reader's own affair
                await asyncio.sleep(0.01)
        assert reader.statistics.reads == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_that_was_late_itself_does_not_blame_redis(
    client: redis.Redis,
    redis_url: str,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_connection, "_GRACE_SECONDS", PATIENT)  # others may have the processor meanwhile
    fill(client, 1_000)  # more than one look into the socket
    wanted = [entity(n) for n in range(1_000)]

    async def main() -> None:
        async with OnlineReader(redis_url, timeout_seconds=0.2) as reader:
            await wait_until_connected(reader)
            for _ in range(3):
                reading = asyncio.create_task(reader.read_block(PIPELINE_BUILDS, wanted))
                for _ in range(4):
                    await asyncio.sleep(0)
                time.sleep(0.3)  # noqa: ASYNC251 - something holds the loop while the reply arrives
                assert (await reading)[2].all()
            assert reader.statistics.timeouts == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def test_a_closed_or_unstarted_reader_says_so(redis_url: str) -> None:
    reader = OnlineReader(redis_url)
    with pytest.raises(OnlineStoreUnavailable, match="not started"):
        await reader.read([(TENANT_LOAD, ("acme",))])
    async with reader:
        pass
    with pytest.raises(OnlineStoreUnavailable, match="closed"):
        await reader.read([(TENANT_LOAD, ("acme",))])


async def test_starting_does_not_need_redis(own_redis: EmbeddedRedis) -> None:
    own_redis.kill()
    async with OnlineReader(own_redis.url, timeout_seconds=PATIENT) as reader:
        with pytest.raises(OnlineStoreUnavailable):
            await reader.read([(TENANT_LOAD, ("acme",))])
        await asyncio.to_thread(own_redis.start)
        started = time.monotonic()
        await wait_until_connected(reader)
        assert within(time.monotonic() - started, 1.0)
        assert await reader.read([(TENANT_LOAD, ("acme",))]) == [UNFILLED]
