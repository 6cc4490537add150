"""What selections and orders came to, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conductor_training.test_failure.metrics import apfd, apfdc
from conductor_workbench.demo.tests.histories import Array, Run


@dataclass(frozen=True)
class Asked:
    """One run, and what was answered before it began. Arrays have the shape [tests], in the run's order."""

    run: Run
    probabilities: Array
    selected: NDArray[np.bool_]
    audited: NDArray[np.bool_]
    """Left out, and drawn to run all the same: selected, too."""
    rank: Array
    """Place of each in the order in which to run them, from 0."""
    reasons: Sequence[str]
    """Why each is run or left out."""
    promise: str
    """What the promise rests on."""
    level: float
    latency_seconds: float
    """Of the call that selects."""

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Failed, and not run."""
        missed: NDArray[np.bool_] = self.run.failed & ~self.selected
        return missed

    @property
    def failed_count(self) -> int:
        """Tests that failed."""
        return int(self.run.failed.sum())

    @property
    def total_seconds(self) -> float:
        """What all tests took, one after the other."""
        return float(self.run.seconds.sum())

    @property
    def saved_seconds(self) -> float:
        """What those took that were left out."""
        return float(self.run.seconds[~self.selected].sum())

    def first_failure_seconds(self, order: Array) -> float:
        """How long it takes until the first failure is known, if tests run by ``order`` (places, or −scores)."""
        by_place = np.argsort(order, kind="stable")
        spent = np.cumsum(self.run.seconds[by_place])
        return float(spent[np.flatnonzero(self.run.failed[by_place])[0]])


def figures(asked: Sequence[Asked], alpha: float) -> dict[str, Any]:
    """Figures of one tenant's runs."""
    failing = [one for one in asked if one.failed_count]
    found: dict[str, Any] = {
        "runs": len(asked),
        "runs_with_a_failure": len(failing),
        "tests_asked": sum(len(one.run.tests) for one in asked),
        "hours": sum(one.total_seconds for one in asked) / 3600,
        "hours_saved": sum(one.saved_seconds for one in asked) / 3600,
        "failures": sum(one.failed_count for one in asked),
        "failures_missed": int(sum(one.missed.sum() for one in asked)),
        "miss_rate_promised": alpha,
        "promise": {basis: sum(one.promise == basis for one in asked) for basis in sorted({o.promise for o in asked})},
        "latency_ms": dict(
            zip(("p50", "p95"), np.percentile([one.latency_seconds * 1e3 for one in asked], [50, 95]), strict=True)
        ),
    }
    found["time_saved"] = found["hours_saved"] / found["hours"] if found["hours"] else 0.0
    if not failing:
        return found
    found["miss_rate"] = float(np.mean([one.missed.sum() / one.failed_count for one in failing]))
    left_out = sum(int((~one.selected | one.audited).sum()) for one in asked)
    found["audited"] = int(sum(one.audited.sum() for one in asked))
    found["left_out_by_the_goal"] = left_out
    several = [one for one in failing if len(one.run.tests) > 1]
    if several:
        found["orders"] = {
            "ordered": _order_figures(several, [one.rank for one in several]),
            "as it ran": _order_figures(several, [np.arange(len(one.run.tests), dtype=np.float64) for one in several]),
        }
    return found


def _order_figures(asked: Sequence[Asked], places: Sequence[Array]) -> dict[str, float]:
    """Means over runs with a failure; of the first failure's minutes the median."""
    runs = [(one, -place, one.run.failed.astype(np.float64)) for one, place in zip(asked, places, strict=True)]
    return {
        "apfd": float(np.mean([apfd(scores, failed) for _, scores, failed in runs])),
        "apfdc": float(np.nanmean([apfdc(scores, failed, one.run.seconds) for one, scores, failed in runs])),
        "first_failure_minutes": float(np.median([one.first_failure_seconds(-scores) for one, scores, _ in runs]) / 60),
    }
