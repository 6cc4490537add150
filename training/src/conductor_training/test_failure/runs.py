"""A frame's results run by run: what the figures of orders and selections are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_training.test_failure.arithmetic import Array
from conductor_training.test_failure.frame import TestFrame

Figure = Callable[[Array, Array, Array], float]
"""Of one run: scores, failed (1 or 0) and costs (s) of its results."""


@dataclass(frozen=True)
class Results:
    """Executed results, those of a run together. A test that was tried again has several, with one score."""

    row: NDArray[np.int64]
    """The frame's row that each is of. Shape [results]."""
    failed: Array
    cost: Array
    begins: NDArray[np.int64]
    """Where each run begins. Shape [runs]."""
    run: NDArray[np.int64]
    """Number of each run. Shape [runs]."""

    @classmethod
    def of(cls, frame: TestFrame) -> Results:
        """All of a frame's results."""
        count = frame.result_count.astype(np.int64)
        row = np.repeat(np.arange(len(count)), count)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        run, begins = np.unique(frame.run[row], return_index=True)
        return cls(row, (place < frame.failed_count[row]).astype(np.float64), (frame.seconds / count)[row], begins, run)

    def figures(self, scores: Array, figure: Figure, least_results: int = 1) -> Array:
        """The figure of each run for the rows' ``scores``; NaN for one with fewer results, or in which nothing
        failed."""
        values = np.full(len(self.run), np.nan)
        for place, part in enumerate(self.parts()):
            failed = self.failed[part]
            if len(failed) >= least_results and failed.any():
                values[place] = figure(scores[self.row[part]], failed, self.cost[part])
        return values

    def parts(self) -> list[slice]:
        """The results of each run."""
        return [slice(*pair) for pair in zip(self.begins, np.r_[self.begins[1:], len(self.row)], strict=True)]
