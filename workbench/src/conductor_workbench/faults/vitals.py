"""What must not grow: memory, descriptors, threads and connections of a process (`O5`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Vitals:
    """A process's, workers included, at one moment."""

    memory_bytes: int
    descriptors: int
    threads: int
    redis_connections: int
    """Open ones, as the store or a proxy before it counts them."""

    @classmethod
    def of(cls, process_id: int, redis_connections: int) -> Vitals:
        """Vitals now."""
        process = psutil.Process(process_id)
        all_processes = [process, *process.children(recursive=True)]
        return cls(
            sum(one.memory_info().rss for one in all_processes),
            sum(one.num_fds() for one in all_processes),
            sum(one.num_threads() for one in all_processes),
            redis_connections,
        )

    def leaks(self, before: Vitals, *, growth_bytes: int) -> list[str]:
        """What has grown since; a thread or a descriptor or two are caches."""
        found = []
        if self.memory_bytes - before.memory_bytes > growth_bytes:
            found.append(f"{(self.memory_bytes - before.memory_bytes) / 2**20:.1f} MiB more memory")
        for name, most_more in (("descriptors", 2), ("threads", 2), ("redis_connections", 0)):
            now, then = getattr(self, name), getattr(before, name)
            if now > then + most_more:
                found.append(f"{now} {name} instead of {then}")
        return found


def settled(look: Callable[[], Vitals], before: Vitals, *, growth_bytes: int) -> tuple[Vitals, list[str]]:
    """Vitals once what ends by itself has ended, and what has grown for good."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        now = look()
        leaks = now.leaks(before, growth_bytes=growth_bytes)
        if not leaks or time.monotonic() > deadline:
            return now, leaks
        time.sleep(0.1)
