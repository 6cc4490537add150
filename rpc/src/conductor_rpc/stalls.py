"""Moments in which the process did nothing for anybody: its event loop was held up, or garbage was collected.

A call that waits meanwhile has no stage that would say so. The loop is asked to look at the clock every 20 ms; how late
it comes to that is how long it was held up. A stall is told once it takes 10 ms, so all those of 30 ms are.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping

from conductor_rpc import names
from conductor_rpc.call import Stage

_TICK_SECONDS = 0.02
_LEAST_SECONDS = 0.01
_JUST_BEFORE_SECONDS = 0.03
"""What came while the process did nothing is handed over so long after, at most."""
_REMEMBERED = 64


class Stalls:
    """Those of one process, the last of them with their times. ``time.perf_counter()`` is the clock."""

    def __init__(self) -> None:
        self.loop_seconds = 0.0
        """Spent in stalls of the event loop since ``start``."""
        self.gc_seconds = 0.0
        """Spent in collections of garbage, however short."""
        self._found: deque[Stage] = deque(maxlen=_REMEMBERED)
        self._last_of_loop = Stage(names.EVENT_LOOP_STALL, -math.inf, -math.inf)
        self._due = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._collecting_since = 0.0

    def start(self) -> None:
        """Begin to look, on the running event loop."""
        if self._tick is None:
            gc.callbacks.append(self._collected)
            self._next()

    def stop(self) -> None:
        """Look no more."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
            gc.callbacks.remove(self._collected)

    def during(self, began: float, ended: float) -> Iterator[Stage]:
        """The stalls that overlap a time, or ended just before it; one that is not noticed yet is noted now."""
        if self._tick is not None:
            self._note_lateness()
        for stall in tuple(self._found):
            if stall.began < ended and (stall.ended or ended) > began - _JUST_BEFORE_SECONDS:
                yield stall

    def waited_since(self, began: float) -> float:
        """Since when who was begun with then may have waited: since the last stall began, if it had just ended."""
        stall = self._last_of_loop
        if stall.began < began <= (stall.ended or 0.0) + _JUST_BEFORE_SECONDS:
            return stall.began
        return began

    def _next(self) -> None:
        self._due = time.perf_counter() + _TICK_SECONDS
        self._tick = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._look)

    def _look(self) -> None:
        self._note_lateness()
        self._next()

    def _note_lateness(self) -> None:
        now = time.perf_counter()
        if now - self._due >= _LEAST_SECONDS:
            self.loop_seconds += now - self._due
            self._last_of_loop = Stage(names.EVENT_LOOP_STALL, self._due, now)
            self._found.append(self._last_of_loop)
            self._due = now

    def _collected(self, phase: str, _: Mapping[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting_since = now
        elif self._collecting_since:
            self.gc_seconds += now - self._collecting_since
            if now - self._collecting_since >= _LEAST_SECONDS:
                self._found.append(Stage(names.GC_PAUSE, self._collecting_since, now))
