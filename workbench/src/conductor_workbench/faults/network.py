"""What a network may do to connections. A fault is one small object; another is another object, or a field more."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True)
class Way:
    """What becomes of the bytes that go one way."""

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    """Up to so much is added at random; bytes never overtake each other."""
    bytes_per_second: float = 0.0
    """0 is no limit."""
    held: bool = False
    """Nothing passes. What was sent comes through when the fault is over, as TCP would send it again."""
    most_bytes: int | None = None
    """After so many on a connection it is cut: a reply ends in the middle."""


class AtFirst(Enum):
    """What happens, once, to the connections that are open when a fault begins."""

    NOTHING = "nothing"
    RESET = "reset"
    """Both sides get an RST."""
    HALF_CLOSE = "half-close"
    """Upstream gets a FIN, and may go on sending."""
    FORGET = "forget"
    """Half-open for good: neither side hears of the other any more, nor that it does not. New ones work."""


@dataclass(frozen=True)
class Fault:
    """Something that the network does while it lasts."""

    name: str
    requests: Way = field(default_factory=Way)
    """From who connects to who listens."""
    replies: Way = field(default_factory=Way)
    at_first: AtFirst = AtFirst.NOTHING
    refuses: bool = False
    """New connections are reset at once."""


CALM = Fault("calm")
PARTITION = Fault("partition both ways", Way(held=True), Way(held=True))
REQUESTS_LOST = Fault("partition on the way there", requests=Way(held=True))
REPLIES_LOST = Fault("partition on the way back", replies=Way(held=True))
HALF_OPEN = Fault("half-open connections", at_first=AtFirst.FORGET)
HALF_CLOSED = Fault("half-closed connections", at_first=AtFirst.HALF_CLOSE)
RESET = Fault("connections reset, and refused", at_first=AtFirst.RESET, refuses=True)


def slow(seconds: float, jitter_seconds: float = 0.0) -> Fault:
    """Replies come late, by so much and up to ``jitter_seconds`` more."""
    return Fault(f"slow by {seconds * 1000:.0f} ms", replies=Way(delay_seconds=seconds, jitter_seconds=jitter_seconds))


def throttled(bytes_per_second: float) -> Fault:
    """Replies trickle."""
    return Fault(f"{bytes_per_second:.0f} B/s", replies=Way(bytes_per_second=bytes_per_second))


def cut_after(count: int) -> Fault:
    """Connections end in the middle of a reply."""
    return Fault(f"replies cut after {count} bytes", replies=Way(most_bytes=count))
