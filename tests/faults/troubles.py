"""What can be wrong with Redis or the way to it, each as a context that the trouble lasts for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import redis

from conductor_workbench.faults import network
from conductor_workbench.faults.stand import Stand

Trouble = Callable[[Stand], AbstractAsyncContextManager[object]]


@dataclass(frozen=True)
class Expected:
    """A trouble, and what it does to answers."""

    trouble: Trouble
    full_share: tuple[float, float] = (0.0, 0.9)
    """Least and most share of answers in full that may come while it lasts."""
    in_short_form: bool = True


def on_the_way(fault: network.Fault) -> Trouble:
    @asynccontextmanager
    async def lasting(stand: Stand) -> AsyncIterator[None]:
        with stand.proxy.suffering(fault):
            yield

    return lasting


@asynccontextmanager
async def killed(stand: Stand) -> AsyncIterator[None]:
    stand.redis.kill()
    yield
    stand.start_redis_again()


@asynccontextmanager
async def failing_over(stand: Stand) -> AsyncIterator[None]:
    stand.fail_over()
    yield


@asynccontextmanager
async def clients_killed(stand: Stand) -> AsyncIterator[None]:
    """``CLIENT KILL`` of everybody else each 100 ms."""

    async def kill() -> None:
        while True:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.1)

    with redis.Redis.from_url(stand.redis.url) as client:
        killing = asyncio.ensure_future(kill())
        yield
        killing.cancel()


@asynccontextmanager
async def read_only_replica(stand: Stand) -> AsyncIterator[None]:
    """READONLY to who writes; reads are served."""
    with redis.Redis.from_url(stand.redis.url) as client:
        client.replicaof("127.0.0.1", "1")
        with contextlib.suppress(redis.exceptions.ReadOnlyError):
            client.set("x", 1)
            raise AssertionError("it can be written")
        yield
        client.replicaof("NO", "ONE")


@asynccontextmanager
async def replica_without_its_master(stand: Stand) -> AsyncIterator[None]:
    """MASTERDOWN to who reads."""
    with redis.Redis.from_url(stand.redis.url) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", "1")
        yield
        client.replicaof("NO", "ONE")
        client.config_set("replica-serve-stale-data", "yes")


@asynccontextmanager
async def out_of_memory(stand: Stand) -> AsyncIterator[None]:
    """OOM to who writes."""
    with redis.Redis.from_url(stand.redis.url) as client:
        client.config_set("maxmemory", 1)
        with contextlib.suppress(redis.exceptions.OutOfMemoryError):
            client.set("x", 1)
            raise AssertionError("it can be written")
        yield
        client.config_set("maxmemory", 0)


@asynccontextmanager
async def busy(stand: Stand) -> AsyncIterator[None]:
    """BUSY: somebody's script does not end."""
    with redis.Redis.from_url(stand.redis.url) as client, redis.Redis.from_url(stand.redis.url) as other:
        client.config_set("lua-time-limit", 5)
        running = asyncio.ensure_future(asyncio.to_thread(other.eval, "while true do end", 0))
        yield
        client.script_kill()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def loading(stand: Stand) -> AsyncIterator[None]:
    """LOADING, and long silences: it reads what it had saved, slowly. It looks up from that each 2 MB."""
    with redis.Redis.from_url(stand.redis.url) as client:
        client.config_set("rdbcompression", "no")
        client.config_set("key-load-delay", 25)
        client.execute_command("DEBUG", "POPULATE", 20_000, "filler", 1_000)
        running = asyncio.ensure_future(asyncio.to_thread(client.execute_command, "DEBUG", "RELOAD"))
        yield
        await running
        client.config_set("key-load-delay", 0)
        client.flushall()
        stand.plant()


TROUBLES = {
    # F1
    "killed, and started again empty": Expected(killed, in_short_form=False),
    # F2
    "slow by 50 ms": Expected(on_the_way(network.slow(0.05))),
    "slow by 200 ms": Expected(on_the_way(network.slow(0.2))),
    "slow by 1000 ms": Expected(on_the_way(network.slow(1.0))),
    "a trickle": Expected(on_the_way(network.throttled(5_000)), in_short_form=False),
    # F3
    "partition both ways": Expected(on_the_way(network.PARTITION)),
    "partition on the way there": Expected(on_the_way(network.REQUESTS_LOST)),
    "partition on the way back": Expected(on_the_way(network.REPLIES_LOST)),
    "half-open connections": Expected(on_the_way(network.HALF_OPEN), (0.2, 1.0)),
    "half-closed connections": Expected(on_the_way(network.HALF_CLOSED), (0.2, 1.0), in_short_form=False),
    "connections reset and refused": Expected(on_the_way(network.RESET), in_short_form=False),
    "replies cut in the middle": Expected(on_the_way(network.cut_after(300))),
    # F4
    "a replica takes over": Expected(failing_over, (0.0, 1.0), in_short_form=False),
    "CLIENT KILL each 100 ms": Expected(clients_killed, (0.2, 1.0)),
    "READONLY": Expected(read_only_replica, (1.0, 1.0), in_short_form=False),
    "OOM": Expected(out_of_memory, (1.0, 1.0), in_short_form=False),
    "MASTERDOWN": Expected(replica_without_its_master),
    "BUSY": Expected(busy, in_short_form=False),
    "LOADING": Expected(loading),
}
