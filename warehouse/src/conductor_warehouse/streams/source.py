"""What a stream of events is to the loop that stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self


class StreamInvalid(ValueError):
    """The settings of the stream make no sense; the message says what to change, and tells no value."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read at once."""

    events: Sequence[bytes]
    """Each as it came, or, where there was none, JSON that shows what came instead and becomes a dead letter."""
    acknowledge: Callable[[], None]
    """Tells the stream that the events are stored. Called once, before the next batch is asked for."""


class Source(Protocol):
    """A stream, as one consumer of a group sees it between entering and leaving. It can be entered again."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What is raised while the stream does not answer. The consumer leaves the source then, and enters it anew."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def batches(self) -> Iterator[Batch | None]:
        """Batches without end; None when nothing has come for a moment, so that a consumer can look whether to stop.

        What is not acknowledged before the source is left comes again, to this consumer or to another one.
        """
