"""What came back to callers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import compress


@dataclass
class Replies:
    """What came back, a place in each list for a question."""

    sent: list[float] = field(default_factory=list)
    """When the call was due, on the machine's monotonic clock."""
    seconds: list[float] = field(default_factory=list)
    """From then until the answer."""
    labels: list[str] = field(default_factory=list)
    """The answer's method, or the error's status code."""
    kinds: list[str] = field(default_factory=list)
    """Of the call."""
    wrong_count: int = 0
    wrong: list[str] = field(default_factory=list)
    """The first few wrong ones, with the reason."""
    calls: int = 0
    cancelled: int = 0
    """Calls whose caller went away before the answer."""
    noise_seconds: float = 0.0
    """How late this process was woken at most: nothing can be told to be later than that."""

    def __len__(self) -> int:
        return len(self.sent)

    @property
    def counts(self) -> dict[str, int]:
        """Replies by label."""
        return dict(Counter(self.labels))

    def between(self, begin: float, end: float = float("inf")) -> Replies:
        """Those that were due between two moments. What was wrong is told of all."""
        return self._those(begin <= sent < end for sent in self.sent)

    def of_kinds(self, kinds: Collection[str]) -> Replies:
        """Those to calls of some kinds. What was wrong is told of all."""
        return self._those(kind in kinds for kind in self.kinds)

    def _those(self, wanted: Iterable[bool]) -> Replies:
        chosen = list(wanted)
        return replace(
            self,
            sent=list(compress(self.sent, chosen)),
            seconds=list(compress(self.seconds, chosen)),
            labels=list(compress(self.labels, chosen)),
            kinds=list(compress(self.kinds, chosen)),
        )

    def percentile(self, share: float) -> float:
        """Seconds within which that share came."""
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(len(found) * share))]

    def last(self, *labels: str) -> float:
        """When the last one with other labels than these was due; 0 for none."""
        return max((sent for sent, label in zip(self.sent, self.labels, strict=True) if label not in labels), default=0)
