"""What must not grow: memory, descriptors, threads and connections of a process (`O5`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Vitals:
    """Those of some processes together, at one moment."""

    memory_bytes: int
    descriptors: int
    threads: int
    redis_connections: int

    @classmethod
    def of(cls, process_ids: Iterable[int], redis_port: int) -> Vitals:
        """Vitals now. Connections are counted by the port that they lead to."""
        found = []
        for one in map(psutil.Process, process_ids):
            with contextlib.suppress(psutil.NoSuchProcess):
                leads = [bool(way.raddr) and way.raddr.port == redis_port for way in one.net_connections()]
                found.append((one.memory_info().rss, one.num_fds(), one.num_threads(), sum(leads)))
        return cls(*map(sum, zip(*found, strict=True)))

    def leaks(self, before: Vitals, *, growth_bytes: int, pool_threads: int = 0) -> list[str]:
        """What has grown since; a thread or a descriptor or two are caches, and pools may have come to their size."""
        found = []
        if self.memory_bytes - before.memory_bytes > growth_bytes:
            found.append(f"{(self.memory_bytes - before.memory_bytes) / 2**20:.1f} MiB more memory")
        for name, most_more in (("descriptors", 2), ("threads", 2 + pool_threads), ("redis_connections", 0)):
            now, then = getattr(self, name), getattr(before, name)
            if now > then + most_more:
                found.append(f"{now} {name} instead of {then}")
        return found


def settled(
    look: Callable[[], Vitals],
    before: Vitals,
    *,
    growth_bytes: int,
    pool_threads: int = 0,
    within_seconds: float = _SETTLE_SECONDS,
) -> tuple[Vitals, list[str]]:
    """Vitals once what ends by itself has ended, and what has grown for good."""
    deadline = time.monotonic() + within_seconds
    while True:
        now = look()
        leaks = now.leaks(before, growth_bytes=growth_bytes, pool_threads=pool_threads)
        if not leaks or time.monotonic() > deadline:
            return now, leaks
        time.sleep(0.1)


def connected(look: Callable[[], Vitals], connections: int, *, within_seconds: float = _SETTLE_SECONDS) -> Vitals:
    """Vitals once there are so many connections to Redis: right after a trouble some are still on their way.

    Raises TimeoutError.
    """
    deadline = time.monotonic() + within_seconds
    while (now := look()).redis_connections != connections:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{now.redis_connections} connections to Redis instead of {connections}")
        time.sleep(0.02)
    return now
