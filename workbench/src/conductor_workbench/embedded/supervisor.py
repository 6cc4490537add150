"""Restarts what ends by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.2
_MOST_RESTARTS = 5
_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class Part:
    """Something that is to run."""

    running: Callable[[], bool]
    start: Callable[[], object]


class Supervisor:
    """Looks after parts in a thread of its own; gives one up that ends too often."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._restarts: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_MOST_RESTARTS))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self.given_up: dict[str, str] = {}
        """Parts that are not started any more, with the reason."""
        self.restart_count = 0
        """Restarts so far."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; nothing is restarted after this returns."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for name, part in self._parts.items():
                if name not in self.given_up and not part.running():
                    self._restart(name, part)

    def _restart(self, name: str, part: Part) -> None:
        recent = self._restarts[name]
        now = time.monotonic()
        if len(recent) == _MOST_RESTARTS and now - recent[0] < _WITHIN_SECONDS:
            self.given_up[name] = f"{name} ended {_MOST_RESTARTS + 1} times within {_WITHIN_SECONDS:.0f} s"
            return
        recent.append(now)
        _LOG.warning("%s has ended: starting it again", name)
        try:
            part.start()
            self.restart_count += 1
        except (OSError, RuntimeError) as error:
            _LOG.warning("%s does not start: %s", name, error)
