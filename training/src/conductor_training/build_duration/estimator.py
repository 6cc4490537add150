"""The whole estimator in numpy: what the exported graph must equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_training.build_duration.base import Array, base, column
from conductor_training.build_duration.columns import LAST, MEAN_7, MEDIAN_7, MEDIAN_500, PASSED_COUNT
from conductor_training.build_duration.heads import Heads, HeadValues, spread
from conductor_training.columns import Column

LEAST_HISTORY = 5
"""With fewer passed builds in the pipeline nothing learned is applied."""
CENTRE_SHARE = 0.67
"""The interval's middle goes this far from the base towards the median, on the log scale."""
TAIL_SHARE = 0.2
"""Share of the learned tails in the interval; the rest is the pipeline's recent error."""
NARROWEST = 1e-3
"""Least half width of an interval on the log scale."""


@dataclass(frozen=True)
class Candidate:
    """A way to a median: a naive rule, or the base corrected by a share of the learned head."""

    name: str
    rule: Column | None = None
    weight: float = 0.0


RULES = tuple(
    Candidate(name, rule)
    for name, rule in (("last", LAST), ("mean7", MEAN_7), ("median7", MEDIAN_7), ("median500", MEDIAN_500))
)
UNCORRECTED = Candidate("base")
BLENDS = tuple(Candidate(f"xgboost-blend-{weight:g}", weight=weight) for weight in (0.5, 0.75, 1.0))
CANDIDATES = (*RULES, UNCORRECTED, *BLENDS)
DEFAULT = BLENDS[1]
"""What is published unless another one is clearly better."""


@dataclass(frozen=True)
class Interval:
    """Middle and half width of ln(duration / base) before the conformal factor, each of shape [rows]."""

    middle: Array
    half_width: Array


def apply_history_rule(values: HeadValues, inputs: NDArray[np.float32]) -> HeadValues:
    """Neutral values where a pipeline has too little history."""
    known = column(inputs, PASSED_COUNT) >= LEAST_HISTORY
    return HeadValues(
        median=np.where(known, values.median, 0.0),
        lower=np.where(known, values.lower, -1.0),
        upper=np.where(known, values.upper, 1.0),
    )


def log_median(inputs: NDArray[np.float32], values: HeadValues, candidate: Candidate) -> Array:
    """ln(median / base) of a candidate, of shape [rows].

    What is learned moves the median by the spread at most: trees may not run away when the world changes.
    """
    if candidate.rule is not None:
        return np.log(column(inputs, candidate.rule) / base(inputs))
    limit = spread(inputs)
    bounded: Array = np.minimum(np.maximum(candidate.weight * values.median, -limit), limit)
    return bounded


def raw_interval(inputs: NDArray[np.float32], values: HeadValues, centre: Array) -> Interval:
    """The interval around ``centre`` = ln(median / base) before calibration."""
    width = spread(inputs)
    middle = CENTRE_SHARE * centre
    lower = (1 - TAIL_SHARE) * (middle - width) + TAIL_SHARE * width * values.lower
    upper = (1 - TAIL_SHARE) * (middle + width) + TAIL_SHARE * width * values.upper
    return Interval((lower + upper) / 2, np.maximum((upper - lower) / 2, NARROWEST))


@dataclass(frozen=True)
class Estimator:
    """Heads, the chosen candidate and the conformal factor."""

    heads: Heads
    candidate: Candidate
    factor: float

    def predict(self, inputs: NDArray[np.float32]) -> Array:
        """Lower bound, median and upper bound in seconds, of shape [rows, 3], for ``inputs`` [rows, len(COLUMNS)]."""
        values = apply_history_rule(self.heads.predict(inputs), inputs)
        centre = log_median(inputs, values, self.candidate)
        interval = raw_interval(inputs, values, centre)
        reach = self.factor * interval.half_width
        bounds = (
            np.minimum(interval.middle - reach, centre),
            centre,
            np.maximum(interval.middle + reach, centre),
        )
        seconds: Array = base(inputs)[:, None] * np.exp(np.column_stack(bounds))
        return seconds
