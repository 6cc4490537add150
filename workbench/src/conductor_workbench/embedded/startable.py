"""What starts and stops, as a context."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Started on the way into a ``with`` block, stopped on the way out."""

    @abstractmethod
    def start(self) -> Self:
        """Start it, and return once it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; nothing happens where it does not run."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
