"""F13: half of the callers go away while Redis is slow; then also while it fails over and models roll."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

from conductor_workbench.faults.network import slow
from conductor_workbench.faults.stand import Stand
from conductor_workbench.faults.vitals import connected, settled
from faults.scene import LONGEST_RECOVERY_SECONDS
from machine import within

SLOW = slow(0.004, jitter_seconds=0.02)
"""Some replies come before the read is given up, some after; the next ones wait meanwhile."""
RATE, CANCELLED_SHARE = 120.0, 0.5
CALM_RATE = 40.0
SECONDS = 3.0
PATIENCE_SECONDS = 30.0
"""Deadline of calls: what is told apart here is right and wrong, not fast and slow."""
GROWTH_BYTES = 16 << 20
RECOVERY_SECONDS = 5.0
CONNECTIONS = 2 * 3
"""To Redis: of each worker, for single rows, for tests' rows, and for lists and graphs."""


async def test_a_storm_of_cancelled_calls(stand: Stand, figure, rounds: Iterator[int], seed: int) -> None:
    """Calls, batches, items of streams and whole streams."""
    storm = {"rate_per_s": RATE, "cancelled_share": CANCELLED_SHARE, "timeout_seconds": PATIENCE_SECONDS}
    with stand.proxy.suffering(SLOW):  # what is allocated once is allocated now
        await stand.ask(seconds=1.0, seed=seed, **storm)
    before = await asyncio.to_thread(connected, stand.vitals, CONNECTIONS)
    asked = cancelled = full = 0
    for number in rounds:
        with stand.proxy.suffering(SLOW):
            replies = await stand.ask(seconds=SECONDS, seed=seed + number + 1, **storm)
        asked, cancelled = asked + len(replies), cancelled + replies.cancelled
        full += replies.counts.get("MODEL", 0)
        assert not replies.wrong_count, replies.wrong
        assert set(replies.counts) <= {"MODEL", "MODEL_DEGRADED", "HISTORY"}, replies.counts
        assert replies.cancelled > RATE * SECONDS * CANCELLED_SHARE / 4
    async with stand.asking(rate_per_s=CALM_RATE, seed=seed) as calm:
        await stand.recovered(0.0, LONGEST_RECOVERY_SECONDS)
    after, leaks = await asyncio.to_thread(settled, stand.vitals, before, growth_bytes=GROWTH_BYTES)
    figure(
        wrong=f"0 of {asked}", full=full, cancelled=cancelled, calm=calm.counts,
        growth_mib=(after.memory_bytes - before.memory_bytes) / 2**20,
        fds=f"{before.descriptors} then {after.descriptors}",
        threads=f"{before.threads} then {after.threads}", redis_connections=after.redis_connections,
    )  # fmt: skip
    assert 0 < full < asked, "Redis was slow, and not away"
    assert not leaks, leaks
    assert after.redis_connections == CONNECTIONS, "those of each worker, and they work"
    assert not calm.wrong_count, calm.wrong


async def test_a_storm_while_redis_fails_over_and_models_roll(
    stand: Stand, figure, rounds: Iterator[int], seed: int
) -> None:
    chance = random.Random(seed)
    owners = list(stand.versions)
    rolled = 0

    async def roll() -> None:
        nonlocal rolled
        while True:
            await asyncio.to_thread(stand.publish, chance.choice(owners), chance.randrange(100))
            rolled += 1
            await asyncio.sleep(chance.uniform(0.05, 0.2))

    asked = cancelled = failovers = 0
    recovery = 0.0
    for number in rounds:
        rolling = asyncio.ensure_future(roll())
        async with stand.asking(
            rate_per_s=RATE, cancelled_share=CANCELLED_SHARE, timeout_seconds=PATIENCE_SECONDS, seed=seed + number
        ) as replies:
            with stand.proxy.suffering(SLOW):
                await asyncio.sleep(0.5)
                stand.fail_over()
                failovers += 1
                await asyncio.sleep(0.7)
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
        ended = time.monotonic()
        async with stand.asking(rate_per_s=CALM_RATE, seed=seed + number) as calm:
            took = await stand.recovered(ended, LONGEST_RECOVERY_SECONDS)
            assert within(took, RECOVERY_SECONDS, ended)
            recovery = max(recovery, took)
        assert not calm.wrong_count, calm.wrong
        asked, cancelled = asked + len(replies), cancelled + replies.cancelled
        assert not replies.wrong_count, replies.wrong
        assert set(replies.counts) <= {"MODEL", "MODEL_DEGRADED", "HISTORY"}, replies.counts
    for owner in owners:
        stand.publish(owner, 0)
    figure(wrong=f"0 of {asked}", cancelled=cancelled, failovers=failovers, rolled=rolled, recovery=recovery)
    assert rolled > 5
