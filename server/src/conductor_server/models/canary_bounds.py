"""What a canary may do before it is taken out of use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conductor_server.models.variant_statistics import VariantStatistics

KINDS = ("failures", "latency", "disagreement")
"""What a canary may break."""


@dataclass(frozen=True, slots=True)
class CanaryBounds:
    """What a canary may do."""

    minimum_count: int
    """Questions before which it is not judged."""
    max_failure_share: float
    max_latency_ratio: float
    """Median time of a run over the champion's, on the same rows."""
    max_disagreement: float
    """Median of |ln(its median / the champion's)|."""

    def broken(self, statistics: VariantStatistics) -> tuple[str, str] | None:
        """Which bound a canary is out of, and how, in words; None if it holds or is not to be judged yet."""
        if statistics.compared_count + statistics.failure_count < self.minimum_count:
            return None
        found = (
            (statistics.failure_share, self.max_failure_share, "share of failures"),
            (statistics.latency_ratio, self.max_latency_ratio, "time beside the champion's"),
            (statistics.disagreement(50), self.max_disagreement, "disagreement with the champion"),
        )
        for kind, (value, bound, what) in zip(KINDS, found, strict=True):
            if value > bound:
                count = statistics.compared_count + statistics.failure_count
                return kind, f"{what} {value:.3g} is above {bound:.3g} after {count} questions"
        return None
