"""What predicting needs from the world. Adapters: ``features/`` and ``models/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import View
from conductor_server.prediction.answers import Estimate, ModelLabel
from conductor_server.prediction.columns import ColumnPlan


class FeatureReader(Protocol):
    """Reads feature rows."""

    async def read(self, requests: Sequence[tuple[View, tuple[str, ...]]]) -> list[FeatureRow | Missing]:
        """Rows in the order asked, in one round trip. Never raises for an outage: rows are then missing."""
        ...


class QuantileModel(Protocol):
    """A model that is loaded, warm, and was verified."""

    @property
    def label(self) -> ModelLabel:
        """What answers of it are labelled with."""
        ...

    @property
    def plan(self) -> ColumnPlan:
        """Its input columns."""
        ...

    @property
    def coverage(self) -> float:
        """Share that its interval claims to cover."""
        ...

    @property
    def statistics(self) -> FallbackStatistics:
        """What to answer with where it can't be run."""
        ...

    async def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Run rows ``[n, columns]``.

        Returns:
            Lower bound, median and upper bound in seconds, ``[n, 3]``; unchecked.

        Raises:
            ModelFailed: the model can't be run on them.
        """
        ...


class ModelFailed(Exception):
    """A model could not be run."""


@dataclass(frozen=True)
class FallbackStatistics:
    """Statistics of durations that came with a model."""

    pipelines: Mapping[tuple[str, str, str], Estimate]
    """By tenant, repository and pipeline."""
    overall: Estimate | None


@dataclass(frozen=True)
class Route:
    """The models that answer a tenant's requests, best first, and the feature views that they all need together."""

    models: tuple[QuantileModel, ...]
    views: tuple[View, ...]

    def positions(self, model: QuantileModel) -> tuple[int, ...]:
        """Where each view of a model's plan stands among ``views``."""
        return tuple(self.views.index(columns.view) for columns in model.plan.views)


class Models(Protocol):
    """The models that serve now."""

    def route(self, predictor: str, tenant_id: str) -> Route:
        """The tenant's model, then the global one; those that there are."""
        ...
