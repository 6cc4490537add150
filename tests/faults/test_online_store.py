"""F1: Redis dies under load and comes back empty."""

from __future__ import annotations

import asyncio
import time

from faults.scene import LATENCY_SECONDS, Asking, Reply, Scene, explain, labels, percentile, wrong
from machine import within

RATE, DOWN_SECONDS = 40, 2.0
RECOVERY_SECONDS = 5.0


async def test_redis_killed_under_load(scene: Scene, figure) -> None:
    async def outage(asking: Asking, replies: list[Reply]) -> float:
        await asyncio.sleep(0.5)
        scene.redis.kill()
        await asyncio.sleep(DOWN_SECONDS)
        await scene.start_again(scene.redis)
        began = time.monotonic()
        took = await asking.recovered(replies, began)
        assert within(took, RECOVERY_SECONDS, began)
        return took

    recovery, start = 0.0, time.monotonic()
    async with scene.asking() as asking:

        async def during(replies: list[Reply]) -> None:
            nonlocal recovery
            recovery = await outage(asking, replies)

        replies = await asking.load(RATE, during)
    found = wrong(scene, replies)
    figure(wrong=f"{len(found)} of {len(replies)}", p95=percentile(replies), recovery=recovery, **labels(replies))
    assert not found, explain(found)
    assert all(reply.answer for reply in replies), "every question has a fallback: none is unavailable"
    assert sum(not reply.full for reply in replies) > RATE, "the outage was one"
    assert within(percentile(replies), LATENCY_SECONDS, start, share=0.95)
