"""F13, F14: callers who go away, and callers in a hurry."""

from __future__ import annotations

import asyncio
import random
import time

import psutil
import redis

from conductor_client import DeadlineExceeded
from faults.scene import Asking, Reply, Scene, explain, wrong

MOST_GROWTH_BYTES = 16 << 20
ROUNDS, CALLS = 8, 150
LATE_SECONDS = 0.02


async def test_a_storm_of_cancelled_calls(scene: Scene, figure) -> None:
    server = psutil.Process(scene.platform.pid("serve"))
    chance = random.Random(13)
    survivors: list[Reply] = []
    cancelled = 0

    async def one(asking: Asking, number: int) -> None:
        nonlocal cancelled
        call = asyncio.ensure_future(asking.ask(number))
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.005)  # an answer takes about three milliseconds
            cancelled += call.cancel()
            await asyncio.wait({call})
        else:
            survivors.append(await call)

    async def round_of_calls(asking: Asking) -> None:
        calls = []
        for _ in range(CALLS):
            await asyncio.sleep(0.002)
            calls.append(asyncio.ensure_future(one(asking, chance.randrange(len(scene.questions)))))
        await asyncio.gather(*calls)

    async with scene.asking() as asking:
        for _ in range(2):  # what is allocated once is allocated now
            await round_of_calls(asking)
        before, connections, descriptors = server.memory_info().rss, _clients(scene), server.num_fds()
        threads = server.num_threads()
        for _ in range(ROUNDS):
            await round_of_calls(asking)
        growth = server.memory_info().rss - before
        # Nobody's place is taken: many more were cancelled than calls may be under way at once.
        replies = [await asking.ask(number) for number in range(len(scene.questions))]
    found = wrong(scene, survivors + replies)
    figure(
        wrong=f"{len(found)} of {len(survivors)}", cancelled=cancelled, growth_mib=growth / 2**20,
        redis_clients=f"{connections} then {_clients(scene)}", fds=f"{descriptors} then {server.num_fds()}",
    )  # fmt: skip
    assert not found, explain(found)
    assert all(reply.full for reply in replies)
    assert cancelled > 256
    assert growth < MOST_GROWTH_BYTES
    assert _clients(scene) <= connections
    assert server.num_fds() <= descriptors + 2
    assert server.num_threads() <= threads + 2


def _clients(scene: Scene) -> int:
    with redis.Redis.from_url(scene.redis.url) as client:
        return len(client.client_list())


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

    async def one(asking: Asking) -> None:
        deadline = chance.uniform(0.001, 0.05)
        reply = await asking.ask(chance.randrange(len(scene.questions)), timeout_seconds=deadline)
        replies.append(reply)
        late.append(reply.seconds - deadline)

    async with scene.asking() as asking:
        for number in range(len(scene.questions)):
            await asking.ask(number)
        watching = asyncio.ensure_future(watch_the_loop())
        for _ in range(150):
            await asyncio.gather(*(one(asking) for _ in range(4)))
        watching.cancel()
    answered = [reply for reply in replies if reply.answer]
    errors = [reply.error for reply in replies if reply.error]
    found = wrong(scene, answered)
    figure(
        wrong=f"{len(found)} of {len(answered)}", expired=len(errors), latest_ms=1000 * max(late), noise_ms=1000 * noise
    )
    assert not found, explain(found)
    assert errors and answered
    assert all(isinstance(error, DeadlineExceeded) for error in errors), errors
    assert max(late) <= LATE_SECONDS + noise
