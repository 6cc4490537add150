"""Bounds what others can make a process write: logs, traces, audit records."""

from __future__ import annotations


class Allowance:
    """So many at once, and so many a second in the long run."""

    def __init__(self, most_at_once: float, most_per_s: float) -> None:
        self._most_at_once, self._most_per_s = most_at_once, most_per_s
        self._left, self._asked = most_at_once, 0.0

    def take(self, now: float) -> bool:
        """Whether there is one left."""
        self._left = min(self._most_at_once, self._left + (now - self._asked) * self._most_per_s)
        self._asked = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
