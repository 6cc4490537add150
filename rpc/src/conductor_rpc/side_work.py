"""What a process does beside its calls: none waits for it, but it takes the processor, and they may be slower."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from conductor_rpc.call import Attributes, Stage

_LEAST_SECONDS = 0.01
"""Less holds nobody up that anybody would ask about."""
_REMEMBERED = 64


class SideWork:
    """The last pieces of such work, with their times. ``time.perf_counter()`` is the clock. For the event loop."""

    def __init__(self) -> None:
        self._under_way: list[Stage] = []
        self._done: deque[Stage] = deque(maxlen=_REMEMBERED)

    @contextmanager
    def doing(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Around a piece of work. Traces of calls that are under way meanwhile tell of it."""
        stage = Stage(name, time.perf_counter(), attributes=attributes)
        self._under_way.append(stage)
        try:
            yield
        finally:
            self._under_way.remove(stage)
            stage.ended = time.perf_counter()
            if stage.ended - stage.began >= _LEAST_SECONDS:
                self._done.append(stage)

    def during(self, began: float, ended: float) -> Iterator[Stage]:
        """The work that overlaps a time."""
        for stage in self._done:
            if stage.began < ended and (stage.ended or ended) > began:
                yield stage
        for stage in self._under_way:
            if stage.began < ended - _LEAST_SECONDS:
                yield stage
