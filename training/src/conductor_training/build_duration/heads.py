"""The learned heads: gradient-boosted trees, one estimator per quantile.

One each, not one for three quantiles: the ONNX converter drops the base scores of a model with several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xgboost import XGBRegressor

from conductor_training.build_duration.base import Array, base, column
from conductor_training.build_duration.columns import SPREAD
from conductor_training.build_duration.transform import transform

COVERAGE = 0.9
SMALLEST_SPREAD, LARGEST_SPREAD, UNKNOWN_SPREAD = 0.02, 1.5, 0.5
SEED = 0

_COMMON = {
    "objective": "reg:quantileerror",
    "tree_method": "hist",
    "max_bin": 64,
    "learning_rate": 0.05,
    "reg_lambda": 5.0,
    "subsample": 0.8,
    # More threads add in another order, and the same data would no longer give the same model.
    "n_jobs": 1,
    "random_state": SEED,
}
_MEDIAN = {"n_estimators": 150, "max_depth": 3, "min_child_weight": 20, "colsample_bytree": 0.5}
_TAIL = {"n_estimators": 100, "max_depth": 2, "min_child_weight": 30, "colsample_bytree": 0.3}


@dataclass(frozen=True)
class Heads:
    """``median`` predicts ln(duration / base); ``lower`` and ``upper`` predict the same in units of the spread."""

    median: XGBRegressor
    lower: XGBRegressor
    upper: XGBRegressor

    def predict(self, inputs: NDArray[np.float32]) -> HeadValues:
        """Values for ``inputs`` [rows, len(COLUMNS)]."""
        features = transform(inputs)
        median, lower, upper = (
            head.predict(features).astype(np.float64) for head in (self.median, self.lower, self.upper)
        )
        return HeadValues(median, lower, upper)


@dataclass(frozen=True)
class HeadValues:
    """What the heads say, each of shape [rows]."""

    median: Array
    lower: Array
    upper: Array


def spread(inputs: NDArray[np.float32]) -> Array:
    """The pipeline's recent relative error, bounded, of shape [rows]."""
    known = np.nan_to_num(column(inputs, SPREAD), nan=UNKNOWN_SPREAD)
    return np.clip(known, SMALLEST_SPREAD, LARGEST_SPREAD)


def fit_heads(inputs: NDArray[np.float32], durations: Array, weights: Array | None = None) -> Heads:
    """Fit to ``inputs`` [rows, len(COLUMNS)] and ``durations`` [rows] in seconds; seeded and on one thread."""
    features = transform(inputs)
    target = np.log(durations / base(inputs))
    scaled = target / spread(inputs)
    tail = (1 - COVERAGE) / 2

    def fit(shape: Mapping[str, float], label: Array, quantile: float, start: float) -> XGBRegressor:
        head = XGBRegressor(**_COMMON, **shape, quantile_alpha=quantile, base_score=start)
        return head.fit(features, label, sample_weight=weights)

    return Heads(
        median=fit(_MEDIAN, target, 0.5, 0.0),
        lower=fit(_TAIL, scaled, tail, -1.0),
        upper=fit(_TAIL, scaled, 1 - tail, 1.0),
    )
