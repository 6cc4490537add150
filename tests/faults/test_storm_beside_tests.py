"""F13 for calls about 2,000 tests: callers go away, Redis is slow; then it fails over and models roll, too."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

import pytest

from conductor_workbench.faults.network import CALM as HEALTHY
from conductor_workbench.faults.network import slow
from conductor_workbench.faults.replies import Replies
from conductor_workbench.faults.stand import Stand
from conductor_workbench.faults.tests_traffic import NO_MODEL
from conductor_workbench.faults.vitals import connected, settled

SLOW = slow(0.004, jitter_seconds=0.02)
OF_TESTS = {"predict_tests": 2, "select_tests": 2, "prioritize_tests": 2}
OF_BUILDS = {"unary": 9, "batch": 3, "stream": 6, "burst": 3}
STORM = {
    "kinds": OF_BUILDS | OF_TESTS | {NO_MODEL: 1},
    "rate_per_s": 60.0,
    "cancelled_share": 0.5,
    "cancelled_within_seconds": 0.05,
    "timeout_seconds": 5.0,
}
LARGE = {"kinds": OF_TESTS, "rate_per_s": 5.0, "whole_share": 1.0}
"""Calls about 2,000 tests each, by callers who stay."""
CALM = {"kinds": OF_BUILDS | OF_TESTS, "rate_per_s": 30.0}
LABELS = {"MODEL", "MODEL_DEGRADED", "HISTORY", "DEFAULT"}
SECONDS = 1.5
PHASES = {
    "calm": (HEALTHY, False),
    "storm": (HEALTHY, True),
    "slow_redis": (SLOW, False),
    "slow_redis_and_storm": (SLOW, True),
}
"""What is wrong with Redis, and whether there is a storm. The last one is the test; the others tell what it costs."""
GROWTH_BYTES = 24 << 20
RECOVERY_SECONDS = 5.0
POOL_THREADS = 2 * min(32, (os.cpu_count() or 1) + 4)
"""What asyncio makes at most for what it is asked to do beside the event loop, of two workers: as they are needed."""
CONNECTIONS = 2 * 3
"""To Redis: of each worker, for single rows, for tests' rows, and for lists and graphs."""


@pytest.fixture(scope="module")
def stand(stand: Stand) -> Stand:
    """It answers about tests, too; what is allocated once is allocated by now."""
    stand.with_tests()

    async def warm() -> None:
        await full_again(stand, 0.0, 1)
        with stand.proxy.suffering(SLOW):
            await stand.ask(seconds=0.3, **STORM)

    asyncio.run(warm())
    return stand


async def full_again(stand: Stand, since: float, seed: int) -> tuple[Replies, float]:
    """Ask calmly until everything is answered in full; returns how long that took, too."""
    async with stand.asking(seed=seed, **CALM) as calm:
        seconds = await stand.recovered(since, RECOVERY_SECONDS)
    assert not calm.wrong_count, calm.wrong
    return calm, seconds


def judged(*replies: Replies) -> Counter[str]:
    """Labels of answers that are all right."""
    for one in replies:
        assert not one.wrong_count, one.wrong
        assert set(one.labels) <= LABELS, one.counts
    return sum((Counter(one.labels) for one in replies), Counter[str]())


def milliseconds(replies: list[Replies]) -> str:
    """Middle and 95th percentile."""
    seconds = sorted(each for one in replies for each in one.seconds)
    return " / ".join(f"{1000 * seconds[int(len(seconds) * share)]:.0f}" for share in (0.5, 0.95))


async def test_calls_about_tests_beside_a_storm(
    stand: Stand, figure, rounds: Iterator[int], long_form: bool, seed: int
) -> None:
    """Of builds and tests alike half of the callers go away; the others' answers are right, and nothing leaks."""
    before = await asyncio.to_thread(connected, stand.vitals, CONNECTIONS)
    large = defaultdict[str, list[Replies]](list)
    storms: list[Replies] = []
    for number in rounds:
        if number == 1:  # what is allocated once is allocated by now, for good
            before = await asyncio.to_thread(connected, stand.vitals, CONNECTIONS)
        for phase, (fault, is_storm) in PHASES.items() if long_form else [list(PHASES.items())[-1]]:
            options = {"seconds": SECONDS, "seed": seed + number}
            with stand.proxy.suffering(fault):
                storm = asyncio.ensure_future(stand.ask(**options, **STORM)) if is_storm else None
                large[phase].append(await stand.ask_beside(**options, **LARGE))
                storms += [] if storm is None else [await storm]
    of_2000 = judged(*chain.from_iterable(large.values()))
    of_any = judged(*(storm.of_kinds({*OF_TESTS, NO_MODEL}) for storm in storms))
    everything = judged(*storms) + of_2000
    cancelled, calls = sum(storm.cancelled for storm in storms), sum(storm.calls for storm in storms)
    await full_again(stand, 0.0, seed)
    after, leaks = await asyncio.to_thread(
        settled, stand.vitals, before, growth_bytes=GROWTH_BYTES, pool_threads=POOL_THREADS
    )
    figure(
        wrong=f"0 of {everything.total()}", of_2000_tests=dict(of_2000), in_the_storm=dict(of_any),
        cancelled=f"{cancelled} of {calls} calls",
        **{f"{phase}_p50_p95_ms": milliseconds(replies) for phase, replies in large.items()},
        growth_mib=(after.memory_bytes - before.memory_bytes) / 2**20,
        fds=f"{before.descriptors} then {after.descriptors}", threads=f"{before.threads} then {after.threads}",
        redis_connections=after.redis_connections,
    )  # fmt: skip
    assert of_2000["MODEL"] and of_any["MODEL"] and of_any["HISTORY"], "the model answers, and what it can't do"
    assert cancelled > calls * STORM["cancelled_share"] / 4
    assert not leaks, leaks
    assert after.redis_connections == CONNECTIONS, "those of each worker, and they work"


async def test_calls_about_tests_while_redis_fails_over_and_models_roll(
    stand: Stand, figure, rounds: Iterator[int], seed: int
) -> None:
    chance = random.Random(seed)
    changes = [(stand.publish, owner) for owner in stand.versions]
    changes += [(stand.publish_tests, owner) for owner in stand.test_versions]
    rolled = 0

    async def roll() -> None:
        nonlocal rolled
        while True:
            publish, owner = chance.choice(changes)
            await asyncio.to_thread(publish, owner, chance.randrange(100))
            rolled += 1
            await asyncio.sleep(chance.uniform(0.05, 0.2))

    found: list[Replies] = []
    recovery = 0.0
    for number in rounds:
        rolling = asyncio.ensure_future(roll())
        async with stand.asking(seed=seed + number, **STORM) as storm:
            with stand.proxy.suffering(SLOW):
                await asyncio.sleep(0.5)
                stand.fail_over()
                await asyncio.sleep(0.7)
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
        ended = time.monotonic()
        calm, seconds = await full_again(stand, ended, seed + number)
        recovery = max(recovery, seconds)
        found += [storm, calm]
    for publish, owner in changes:
        publish(owner, 0)
    figure(
        wrong=f"0 of {judged(*found).total()}", of_tests=dict(judged(*(one.of_kinds(OF_TESTS) for one in found))),
        cancelled=sum(one.cancelled for one in found), failovers=len(found) // 2, rolled=rolled, recovery=recovery,
    )  # fmt: skip
    assert rolled > 5
