"""Predictions, in Python's own terms."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsResponse,
    PredictBuildDurationResponse,
)
from conductor.prediction.v1.provenance_pb2 import DurationContribution
from conductor_client.errors import ConductorError, error_from_status


class PredictionMethod(IntEnum):
    """How a value was found, best first: ``conductor.prediction.v1.PredictionMethod`` without the prefix."""

    UNSPECIFIED = 0
    MODEL = 1
    MODEL_DEGRADED = 2
    """By the model, with features missing that it can do without."""
    HISTORY = 3
    """From the recent history of the same pipeline."""
    DEFAULT = 4
    """From the whole population: nothing is known of this pipeline."""

    @classmethod
    def _missing_(cls, value: object) -> "PredictionMethod":
        """Treat a method that a later server has added as not told."""
        return cls.UNSPECIFIED


class FallbackReason(IntEnum):
    """Why the tenant's best model did not answer: ``conductor.prediction.v1.FallbackReason`` without the prefix."""

    UNSPECIFIED = 0
    """It did, or there is none."""
    MODEL_LOADING = 1
    """It is not in memory yet: it is being loaded."""
    MODEL_UNAVAILABLE = 2
    """It was refused, or could not be read."""
    MODEL_FAILED = 3
    """It could not be run on the request, or gave what can't be an answer."""

    @classmethod
    def _missing_(cls, value: object) -> "FallbackReason":
        """Treat a reason that a later server has added as not told."""
        return cls.UNSPECIFIED


class Variant(IntEnum):
    """Which channel's model answered: ``conductor.prediction.v1.Variant`` without the prefix."""

    UNSPECIFIED = 0
    """No model did."""
    CHAMPION = 1
    CANARY = 2
    CHALLENGER = 3

    @classmethod
    def _missing_(cls, value: object) -> "Variant":
        """Treat a channel that a later server has added as not told."""
        return cls.UNSPECIFIED


@dataclass(frozen=True)
class Contribution:
    """How much one feature moved a prediction, against its typical value."""

    feature: str
    value: float | None
    """The feature's value; None if it was missing."""
    effect: timedelta
    """What it added to the median or, negative, took from it."""


@dataclass(frozen=True)
class BuildDurationPrediction:
    """How long a build will take if it passes, with where that comes from."""

    median: timedelta
    lower: timedelta
    upper: timedelta
    coverage: float
    """Share of builds that lie within lower and upper, as claimed: 0.9 is 90 %; 0 is no claim."""
    method: PredictionMethod
    fallback_reason: FallbackReason
    """Why a lower rung answered than the tenant's best model."""
    variant: Variant
    model_name: str
    """For example ``models/build-duration/tenants/acme``; empty for none."""
    model_version: str
    model_digest: str
    """SHA-256 of the model's graph, in hexadecimal."""
    oldest_feature_age: timedelta | None
    """None if no feature row was used."""
    missing_features: tuple[str, ...]
    contributions: tuple[Contribution, ...]
    """Largest effect first."""
    prediction_id: str
    prediction_time: datetime


def build_duration_prediction(response: PredictBuildDurationResponse) -> BuildDurationPrediction:
    """Read an answer."""
    provenance, interval = response.provenance, response.interval
    return BuildDurationPrediction(
        median=response.duration.ToTimedelta(),
        lower=interval.lower_duration.ToTimedelta(),
        upper=interval.upper_duration.ToTimedelta(),
        coverage=interval.coverage,
        method=PredictionMethod(provenance.method),
        fallback_reason=FallbackReason(provenance.fallback_reason),
        variant=Variant(provenance.variant),
        model_name=provenance.model_name,
        model_version=provenance.model_version,
        model_digest=provenance.model_digest,
        oldest_feature_age=(
            provenance.oldest_feature_age.ToTimedelta() if provenance.HasField("oldest_feature_age") else None
        ),
        missing_features=tuple(provenance.missing_features),
        contributions=tuple(map(_contribution, response.contributions)),
        prediction_id=provenance.prediction_id,
        prediction_time=provenance.prediction_time.ToDatetime(tzinfo=UTC),
    )


def _contribution(item: DurationContribution) -> Contribution:
    value = item.value if item.HasField("value") else None
    return Contribution(item.feature, value, item.effect_duration.ToTimedelta())


def build_duration_results(
    response: BatchPredictBuildDurationsResponse,
) -> list[BuildDurationPrediction | ConductorError]:
    """Read the items of a batch, in order; an item that failed is its exception, not raised."""
    return [
        error_from_status(result.error)
        if result.WhichOneof("result") == "error"
        else build_duration_prediction(result.response)
        for result in response.results
    ]
