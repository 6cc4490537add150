"""Questions, and the answers with their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Self

_TEN_YEARS_SECONDS = 10 * 366 * 86_400.0


class Method(Enum):
    """How a value was found, best first."""

    MODEL = "model"
    MODEL_DEGRADED = "model_degraded"
    HISTORY = "history"
    DEFAULT = "default"


class Variant(Enum):
    """Which of the models that a tenant has answered."""

    CHAMPION = "champion"
    CANARY = "canary"
    CHALLENGER = "challenger"
    SHADOW = "shadow"
    """Never answers."""


class Fallback(Enum):
    """Why the best model of a tenant did not answer."""

    NONE = "none"
    """It did, or there is none."""
    MODEL_LOADING = "model_loading"
    """It is not in memory yet."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """It was refused, or could not be read."""
    MODEL_FAILED = "model_failed"
    """It could not be run on the request, or said what can't be an answer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A duration with its interval, in seconds."""

    lower_seconds: float
    median_seconds: float
    upper_seconds: float
    coverage: float = 0.0
    """Share that the interval claims to cover; 0 is no claim."""

    @classmethod
    def checked(cls, lower: float, median: float, upper: float, coverage: float = 0.0) -> Self | None:
        """The estimate, or None for what can't be one: not finite, not ordered, or not a duration.

        A lower bound below zero is zero: no duration is left out by that.
        """
        finite = math.isfinite(lower) and math.isfinite(median) and math.isfinite(upper)
        if not (finite and lower <= median <= upper <= _TEN_YEARS_SECONDS and median > 0):
            return None
        return cls(max(lower, 0.0), median, upper, coverage)


@dataclass(frozen=True, slots=True)
class Contribution:
    """How much a feature moved the median."""

    feature: str
    value: float
    """NaN where the feature is missing."""
    effect_seconds: float


@dataclass(frozen=True, slots=True)
class ModelLabel:
    """Which model an answer is of, or whose statistics it is from."""

    name: str
    version: str
    digest: str


NO_MODEL = ModelLabel("", "", "")


@dataclass(slots=True)
class Prediction:
    """An answer with its labels. Not frozen, as a frozen one takes three times as long to make."""

    estimate: Estimate
    method: Method
    model: ModelLabel = NO_MODEL
    oldest_feature_age_seconds: float | None = None
    """None where no feature row was used."""
    missing_features: tuple[str, ...] = ()
    """``view.field`` of what the model takes and could not have."""
    fallback: Fallback = Fallback.NONE
    variant: Variant = Variant.CHAMPION
    contributions: tuple[Contribution, ...] = ()
    """Largest effect first."""
