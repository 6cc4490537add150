"""Where an answer comes from, as a person would say it."""

from datetime import timedelta
from typing import Protocol

from conductor_client.output import readable_duration
from conductor_client.predictions import FallbackReason, PredictionMethod, Variant


class Labels(Protocol):
    """What an answer is labelled with."""

    @property
    def method(self) -> PredictionMethod:
        """How it was found."""
        ...

    @property
    def fallback_reason(self) -> FallbackReason:
        """Why the tenant's best model did not answer."""
        ...

    @property
    def variant(self) -> Variant:
        """Which channel's model did."""
        ...

    @property
    def model_name(self) -> str:
        """Its name."""
        ...

    @property
    def model_version(self) -> str:
        """Its version."""
        ...

    @property
    def oldest_feature_age(self) -> timedelta | None:
        """Age of the oldest row that was used."""
        ...


def origin_words(labels: Labels, *, history: str, default: str) -> str:
    """In words; ``history`` and ``default`` are those for answers without a model."""
    name = labels.model_name.removeprefix("models/").replace("/tenants/", "/", 1)
    model = f"model {name} {labels.model_version}"
    if labels.variant in {Variant.CANARY, Variant.CHALLENGER}:
        model = f"{labels.variant.name.lower()} {model}"
    if labels.fallback_reason is FallbackReason.MODEL_LOADING:
        model += " (the tenant's own is being loaded)"
    age = labels.oldest_feature_age
    freshness = f", features {readable_duration(age)} old" if age is not None else ""
    match labels.method:
        case PredictionMethod.MODEL:
            return model + freshness
        case PredictionMethod.MODEL_DEGRADED:
            return f"{model} without some of its features{freshness}"
        case PredictionMethod.HISTORY:
            return f"{history}{freshness}"
        case PredictionMethod.DEFAULT:
            return default
    return "by a method that this client doesn't know"
