"""How many calls may be under way at once: as many as are answered in time.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as servers do it on delay: the decrease grows with the
excess over a target and is at most a half (Cho et al., "Overload Control for µs-scale RPCs with Breakwater", OSDI
2020); a limit that is not made use of does not grow (Netflix's concurrency-limits, ``AIMDLimit``), but is forgotten
some seconds after the last trouble. What is compared with the target is how long the quickest tenth of the calls took:
a burst's first ones are quick, those of a queue that stands are not (CoDel: Nichols and Jacobson, 2012). ADR 23 says
why this one.

Pure: durations go in, a limit comes out. Only durations of calls that are alike belong here: a batch takes long because
it is large, not because there is too much to do.
"""

from __future__ import annotations

import math
from typing import Protocol

_WINDOW_SECONDS = 0.1
_LEAST_SAMPLES = 10
"""A window with fewer goes on: a few outliers must not speak for all."""
_MOST_SAMPLES = 256
_QUICKEST = 10
"""One in so many is quicker than what is compared with the target."""
_OLDEST_SECONDS = 1.0
"""What was sampled before then says nothing about now."""
_REMEMBERED_SECONDS = 5.0
"""After a stall at night, the first burst of the morning must not be refused."""
_STEP = 4
_SLOPE = 0.2
_STEEPEST = 0.5
_IN_USE = 0.5
"""Of the limit: with fewer calls under way, nothing is known about what more would do."""


class Limit(Protocol):
    """How many calls may be under way now."""

    def count(self, now: float) -> int:
        """So many."""
        ...

    def sample(self, seconds: float, taken_count: int, now: float, *, answered: bool = True) -> None:
        """Take note of a call that was answered, or given up at its deadline."""
        ...


class FixedLimit:
    """Always the same."""

    def __init__(self, count: int) -> None:
        self._count = count

    def count(self, now: float) -> int:
        """Always the same."""
        return self._count

    def sample(self, seconds: float, taken_count: int, now: float, *, answered: bool = True) -> None:
        """Makes no difference."""


class AdaptiveLimit:
    """Falls while all calls take longer than they should, rises while they don't and it is made use of."""

    def __init__(self, least: int, most: int, target_seconds: float) -> None:
        """Begins with ``most``. ``target_seconds``: what the quickest tenth of a window's calls should take at most."""
        self._least, self._most, self._target = min(least, most), most, target_seconds
        self._limit = float(most)
        self._samples: list[float] = []
        self._peak_count = 0
        self._began = 0.0
        self._exceeded = -math.inf
        """When a window last took too long."""

    def count(self, now: float) -> int:
        """The limit now."""
        if now - self._exceeded > _REMEMBERED_SECONDS:
            return self._most
        return int(self._limit)

    def sample(self, seconds: float, taken_count: int, now: float, *, answered: bool = True) -> None:
        """Take note of a call that was answered, or given up at its deadline.

        Args:
            seconds: what it took.
            taken_count: how many places were taken when it ended, its own included.
            now: on any clock that goes forward.
            answered: if not, it would have taken longer.
        """
        if not answered and seconds <= self._target:
            return  # whether it would have taken too long is not known: deadlines of 5 ms are no sign of a quick server
        if not self._samples or now - self._began > _OLDEST_SECONDS:
            self._samples, self._peak_count, self._began = [], 0, now
        if len(self._samples) < _MOST_SAMPLES:
            self._samples.append(seconds)
        self._peak_count = max(self._peak_count, taken_count)
        if now - self._began >= _WINDOW_SECONDS and len(self._samples) >= _LEAST_SAMPLES:
            self._limit = min(max(self._next(float(self.count(now)), now), self._least), self._most)
            self._samples = []

    def _next(self, limit: float, now: float) -> float:
        excess = sorted(self._samples)[len(self._samples) // _QUICKEST] / self._target - 1
        if excess > 0:
            # From what is in use: a limit far above that would have to fall for long before anybody noticed.
            used = min(limit, float(self._peak_count))
            self._exceeded = now
            return used * max(1 - _SLOPE * excess, _STEEPEST)
        return limit + _STEP if self._peak_count >= _IN_USE * limit else limit
