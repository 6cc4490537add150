"""How one version does beside another, in this process."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

_KEPT = 2000


@dataclass(slots=True)
class VariantStatistics:
    """Of a shadow against the champion that answered, or of a canary or challenger that answered against the champion.

    Percentiles and medians are over the latest 2,000.
    """

    compared_count: int = 0
    """Answers that both gave."""
    failure_count: int = 0
    """Questions that the version could not answer though it was asked."""
    dropped_count: int = 0
    """Questions that were not compared because too many waited."""
    differences: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """ln(median of the version / median of the champion)."""
    seconds: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Seconds that the version and the champion took for the same rows."""
    _sum: float = 0.0

    def compared(self, median_seconds: float, champion_median_seconds: float) -> float:
        """Take note of two answers; returns their difference."""
        difference = math.log(median_seconds / champion_median_seconds)
        self.compared_count += 1
        self._sum += difference
        self.differences.append(difference)
        return difference

    @property
    def mean_difference(self) -> float:
        """Over all; 0 for none."""
        return self._sum / self.compared_count if self.compared_count else 0.0

    def disagreement(self, percent: float) -> float:
        """A percentile of the differences' absolute values; 0 for none."""
        return float(np.percentile(np.abs(self.differences), percent)) if self.differences else 0.0

    @property
    def failure_share(self) -> float:
        """Of the questions that were not dropped."""
        asked = self.compared_count + self.failure_count
        return self.failure_count / asked if asked else 0.0

    @property
    def latency_ratio(self) -> float:
        """Median time of a run over the champion's; 0 where nothing was timed."""
        if not self.seconds:
            return 0.0
        own, champion = np.median(np.array(self.seconds), axis=0).tolist()
        return float(own / champion) if champion else 0.0
