"""A process that tells what the machine took from it. It sleeps and works all the time, a little: 3 % of a core.

Each line of its input is a moment; it answers with what it has lost since then, as JSON, and ends with its input.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import deque

TICK_SECONDS, LATE_SECONDS = 0.005, 0.001
"""How long it sleeps at a time, and from when on it has woken late."""
PERIOD_SECONDS, ASKED_SECONDS = 0.5, 0.1
"""From one piece of work to the next, and where it is asked meanwhile."""
QUIET_SECONDS = 0.01
"""What the piece takes on a quiet core."""
SLOWER = 1.25
"""From when on the piece took longer: clocks and caches are never quite the same."""
_INPUT, _OUTPUT = 0, 1
_MOST = 1_000_000
"""Losses that are kept."""

Lost = tuple[float, float, float]
"""From when to when, on the machine's monotonic clock, and how many seconds were lost in between."""


def work() -> float:
    """Do the piece; returns how many times as long as on a quiet core it took, at least 1."""
    began = time.perf_counter()
    sum(number * number for number in range(240_000))
    slower = (time.perf_counter() - began) / QUIET_SECONDS
    return slower if slower > SLOWER else 1.0


def watch() -> None:
    asleep, at_work = deque[Lost](maxlen=_MOST), deque[Lost](maxlen=_MOST)
    awake = worked = time.monotonic()
    while True:
        asked, _, _ = select.select([_INPUT], [], [], TICK_SECONDS)
        due, awake = awake + TICK_SECONDS, time.monotonic()
        if awake - due > LATE_SECONDS:
            asleep.append((due, awake, awake - due))
        if awake - worked > (ASKED_SECONDS if asked else PERIOD_SECONDS):
            slower = work()
            awake = time.monotonic()
            if slower > 1.0:
                # What was done meanwhile took as many times as long.
                at_work.append((worked, awake, (awake - worked) * (1 - 1 / slower)))
            worked = awake
        if asked:
            lines = os.read(_INPUT, 100).split()
            if not lines:
                return
            since = float(lines[-1])
            told = {
                name: [one for one in lost if one[1] > since]
                for name, lost in (("asleep", asleep), ("at_work", at_work))
            }
            answer = json.dumps(told).encode() + b"\n"
            awake = time.monotonic()
            os.write(_OUTPUT, answer)


if __name__ == "__main__":
    watch()
