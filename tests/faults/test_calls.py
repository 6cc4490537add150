"""F14: callers in a hurry. Those who go away: `test_cancel_storm.py`."""

from __future__ import annotations

import asyncio
import random
import time

from conductor_client import DeadlineExceeded
from faults.scene import Asking, Reply, Scene, explain, wrong
from machine import within

LATE_SECONDS, LONGEST_SECONDS = 0.02, 0.05


async def test_short_deadlines(scene: Scene, figure) -> None:
    chance = random.Random(14)
    late: list[float] = []
    replies: list[Reply] = []
    noise = 0.0

    async def watch_the_loop() -> None:
        """How late this machine wakes us: no answer can be told to be later than that."""
        nonlocal noise
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            noise = max(noise, time.monotonic() - began - 0.001)

    async def one(asking: Asking, longest: float) -> None:
        deadline = chance.uniform(0.001, longest)
        reply = await asking.ask(chance.randrange(len(scene.questions)), timeout_seconds=deadline)
        replies.append(reply)
        late.append(reply.seconds - deadline)

    async with scene.asking() as asking:
        for number in range(len(scene.questions)):
            await asking.ask(number)
        watching = asyncio.ensure_future(watch_the_loop())
        began = time.monotonic()
        for times in range(1, 11):
            for _ in range(150):
                await asyncio.gather(*(one(asking, times * LONGEST_SECONDS) for _ in range(4)))
            answered = [reply for reply in replies if reply.answer]
            errors = [reply.error for reply in replies if reply.error]
            if answered and errors:  # a busy machine answers none in time: they get longer ones
                break
        watching.cancel()
    found = wrong(scene, answered)
    figure(
        wrong=f"{len(found)} of {len(answered)}", expired=len(errors), latest_ms=1000 * max(late), noise_ms=1000 * noise
    )
    assert not found, explain(found)
    assert errors and answered
    assert all(isinstance(error, DeadlineExceeded) for error in errors), errors
    assert within(max(late), LATE_SECONDS + noise, began)
