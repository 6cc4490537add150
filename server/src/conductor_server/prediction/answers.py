"""Questions, and the answers with their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

LONGEST_SECONDS = 10 * 366 * 86_400.0
"""Ten years: no build takes as long."""


class Method(StrEnum):
    """How a value was found, best first."""

    MODEL = "model"
    MODEL_DEGRADED = "model_degraded"
    HISTORY = "history"
    DEFAULT = "default"


class Variant(StrEnum):
    """Which of the models that a tenant has answered."""

    CHAMPION = "champion"
    CANARY = "canary"
    CHALLENGER = "challenger"
    SHADOW = "shadow"
    """Never answers."""


class Fallback(StrEnum):
    """Why the best model of a tenant did not answer."""

    NONE = "none"
    """It did, or there is none."""
    MODEL_LOADING = "model_loading"
    """It is not in memory yet."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """It was refused, or could not be read."""
    MODEL_FAILED = "model_failed"
    """It could not be run on the request, or said what can't be an answer."""


@dataclass(slots=True)
class Estimate:
    """A duration with its interval, in seconds. Not frozen, as a frozen one takes three times as long to make."""

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
        if -math.inf < lower <= median <= upper <= LONGEST_SECONDS and median > 0:  # never so for NaN
            return cls(max(lower, 0.0), median, upper, coverage)
        return None


class Contribution(NamedTuple):
    """How much a feature moved what was predicted."""

    feature: str
    value: float
    """NaN where the feature is missing."""
    effect: float
    """Of a median in seconds, or of a probability."""


class ModelLabel(NamedTuple):
    """Which model an answer is of, or whose statistics it is from."""

    name: str
    version: str
    digest: str


NO_MODEL = ModelLabel("", "", "")


class Origin(NamedTuple):
    """Where an answer comes from. Most answers of a batch have the same."""

    method: Method
    model: ModelLabel = NO_MODEL
    missing_features: tuple[str, ...] = ()
    """``view.field`` of what the model takes and could not have."""
    fallback: Fallback = Fallback.NONE
    variant: Variant = Variant.CHAMPION


@dataclass(slots=True)
class Prediction:
    """An answer with its labels."""

    estimate: Estimate
    origin: Origin
    oldest_feature_age_seconds: float | None = None
    """None where no feature row was used."""
    contributions: Sequence[Contribution] = ()
    """Largest effect first."""
