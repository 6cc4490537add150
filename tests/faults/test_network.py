"""F3 and the way to the server: calls end by their deadline, and answers are right, whatever the network does."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest

from conductor_workbench.faults import network
from conductor_workbench.faults.proxy import Proxy
from conductor_workbench.faults.stand import Stand
from conductor_workbench.faults.vitals import connected, settled
from faults.scene import LONGEST_RECOVERY_SECONDS
from machine import tries, within

LATE_SECONDS = 0.02
DEADLINE_SECONDS = 0.1
RECOVERY_SECONDS = 5.0
LASTS_SECONDS = 0.5
TRIES = 4
"""The machine may stand still for a moment that only one of the processes meets: then it is tried again."""
GROWTH_BYTES = 16 << 20
CONNECTIONS = 2 * 3
"""To Redis: of each worker, for single rows, for tests' rows, and for lists and graphs."""
ALLOWED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
KINDS = {"unary": 3, "batch": 1, "stream": 2}
"""All that have a deadline. A burst ends when its stream is closed, which has patience of its own."""
PARTITIONS = [network.PARTITION, network.REQUESTS_LOST, network.REPLIES_LOST, network.HALF_OPEN]
BETWEEN_CALLERS_AND_SERVER = [
    network.slow(0.05, 0.05),
    network.throttled(20_000),
    network.cut_after(500),
    network.RESET,
    network.HALF_CLOSED,
    network.PARTITION,
    network.REQUESTS_LOST,
    network.REPLIES_LOST,
]


@pytest.mark.parametrize("where", ["before Redis", "before the server"])
async def test_no_call_outlives_its_deadline(
    stand: Stand, figure, rounds: Iterator[int], seed: int, where: str
) -> None:
    asked = 0
    worst: tuple[float, float] = (0.0, 0.0)
    with Proxy(stand.server.target) as front:
        broken = stand.proxy if where == "before Redis" else front
        for number in rounds:
            for _ in tries(TRIES):
                began = time.monotonic()
                async with stand.asking(
                    target=front.target, rate_per_s=60, kinds=KINDS, timeout_seconds=DEADLINE_SECONDS, errors=ALLOWED,
                    seed=seed + number,
                ) as replies:  # fmt: skip
                    for fault in PARTITIONS[: 4 if where == "before Redis" else 3]:
                        with broken.suffering(fault):
                            await asyncio.sleep(LASTS_SECONDS)
                        await asyncio.sleep(0.2)
                assert not replies.wrong_count, replies.wrong
                asked += len(replies)
                late, noise = max(replies.seconds) - DEADLINE_SECONDS, replies.noise_seconds
                if in_time := within(late, LATE_SECONDS + noise, began):
                    break
            assert in_time, (late, noise)
            worst = max(worst, (late, noise))
    figure(wrong=f"0 of {asked}", latest_ms=1000 * worst[0], noise_ms=1000 * worst[1])


async def test_between_callers_and_server(stand: Stand, figure, rounds: Iterator[int], seed: int) -> None:
    """Half of the calls are cancelled too: what is left of them is nobody else's."""
    chance = random.Random(seed)
    asked, recovery = 0, 0.0
    before = await asyncio.to_thread(connected, stand.vitals, CONNECTIONS)
    with Proxy(stand.server.target) as front:
        for number in rounds:
            faults = list(BETWEEN_CALLERS_AND_SERVER)
            chance.shuffle(faults)
            async with stand.asking(
                target=front.target, rate_per_s=60, cancelled_share=0.3, errors=ALLOWED, seed=seed + number
            ) as replies:
                for fault in faults:
                    with front.suffering(fault):
                        await asyncio.sleep(LASTS_SECONDS)
                ended = time.monotonic()
                took = await stand.recovered(ended, LONGEST_RECOVERY_SECONDS)
                assert within(took, RECOVERY_SECONDS, ended)
                recovery = max(recovery, took)
            assert not replies.wrong_count, replies.wrong
            asked += len(replies)
    _, leaks = await asyncio.to_thread(settled, stand.vitals, before, growth_bytes=GROWTH_BYTES)
    figure(wrong=f"0 of {asked}", recovery=recovery, **replies.counts)
    assert not leaks, leaks
