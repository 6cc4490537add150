"""How fast this machine is just now. Criteria that name seconds hold on a quiet one, and others may keep it busy."""

from __future__ import annotations

import os
import time

_QUIET_SECONDS = 0.1
"""What the work takes on two quiet cores."""


def slowness() -> float:
    """How many times as long as on a quiet machine work takes now, or took within the last minute; at least 1."""
    began = time.perf_counter()
    sum(number * number for number in range(1_200_000))
    now = (time.perf_counter() - began) / _QUIET_SECONDS
    cores = len(os.sched_getaffinity(0))
    return max(1.0, now, os.getloadavg()[0] / cores)


def within(seconds: float, bound: float) -> bool:
    """Whether it was in time: as many times later as work takes longer here, but no more."""
    return seconds <= bound or seconds <= bound * slowness()
