"""What predicting needs from the world. Adapters: ``features/`` and ``models/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conductor_features.tables import RowTable, TableLayout, layout_of
from conductor_features.views import View
from conductor_model_store.promise import PastCycle
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_server.prediction.answers import Estimate, Fallback, ModelLabel, Variant
from conductor_server.prediction.columns import ColumnPlan, Question
from conductor_server.prediction.gathering import Gatherer, gatherer_of

MOST_ROWS_AT_ONCE = 128
"""More rows than this a model is run on beside the event loop: other calls must not wait for them."""


class FeatureReader(Protocol):
    """Reads feature rows."""

    @property
    def longest_seconds(self) -> float:
        """What a read may take."""
        ...

    async def read(
        self, layout: TableLayout, entities: Sequence[Sequence[tuple[str, ...]]], until: Deadline = NO_DEADLINE
    ) -> RowTable:
        """Rows of the layout's views, a line for each request. Never raises for an outage: rows are then missing.

        Args:
            layout: the views.
            entities: of each request, an entity for each view.
            until: when it is given up, if that is before ``longest_seconds`` are over.
        """
        ...


class Model(Protocol):
    """A model that is loaded, warm, and was verified."""

    @property
    def label(self) -> ModelLabel:
        """What answers of it are labelled with."""
        ...

    @property
    def tenant_id(self) -> str:
        """Whose it is; empty for the global one."""
        ...

    @property
    def plan(self) -> ColumnPlan:
        """Its input columns."""
        ...

    @property
    def coverage(self) -> float:
        """Share that its interval claims to cover; 0 for none."""
        ...

    @property
    def past_cycles(self) -> Sequence[PastCycle] | None:
        """What promises about selected tests are calibrated on, oldest first; None where it came with nothing."""
        ...

    @property
    def statistics(self) -> FallbackStatistics:
        """What to answer with where it can't be run."""
        ...

    @property
    def input_name(self) -> str:
        """Its graph's input tensor."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """Its graph's outputs, in the order of what ``run`` returns."""
        ...

    def score(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """As ``run``, at once: for a thread beside the event loop. Raises ModelFailed."""
        ...

    async def run(self, inputs: NDArray[np.float32], until: Deadline = NO_DEADLINE) -> NDArray[np.float64]:
        """Run rows ``[n, columns]``: up to ``MOST_ROWS_AT_ONCE`` here and now, more in a thread.

        Nothing is begun after ``until``.

        Returns:
            Lower bound, median and upper bound in seconds, ``[n, 3]``, or a probability, ``[n, 1]``; unchecked.

        Raises:
            ModelFailed: the model can't be run on them.
            DeadlineTooShort: it could not be run in time.
        """
        ...


class Comparing(Protocol):
    """Compares models beside the requests."""

    def offer(
        self, route: Route, questions: Sequence[Question], rows: RowTable, medians: Sequence[float | None]
    ) -> None:
        """Take note of what the first model of a route answered; never waits, never raises.

        Args:
            route: one with something beside it.
            questions: what was asked.
            rows: their feature rows.
            medians: its answers in seconds; None where it failed.
        """
        ...


class ModelFailed(Exception):
    """A model could not be run."""


@dataclass(frozen=True)
class FallbackStatistics:
    """Statistics that came with a model: of durations, or of what its probability is of."""

    pipelines: Mapping[tuple[str, str, str], Estimate]
    """By tenant, repository and pipeline."""
    overall: Estimate | None
    overall_rate: float | None = None
    """Share of all rows."""


@dataclass(frozen=True)
class Route:
    """The models that answer a tenant's requests, best first, and the feature views that they all need together."""

    models: tuple[Model, ...]
    views: tuple[View, ...]
    fallback: Fallback = Fallback.NONE
    """Why the tenant's own model is not among them."""
    variant: Variant = Variant.CHAMPION
    """What the first of them is; after a canary or challenger comes the champion."""
    beside: Model | None = None
    """What is asked the same afterwards, to compare: the shadow beside the champion, the champion beside another."""

    @cached_property
    def layout(self) -> TableLayout:
        """Of the rows that are read for a request."""
        return layout_of(self.views)

    @cached_property
    def gatherers(self) -> tuple[Gatherer, ...]:
        """What makes each model's input rows out of those rows."""
        return tuple(gatherer_of(model.plan, self.layout) for model in self.models)

    @cached_property
    def gatherer_beside(self) -> Gatherer | None:
        """The same for the model beside them."""
        return gatherer_of(self.beside.plan, self.layout) if self.beside is not None else None


class Models(Protocol):
    """The models that serve now."""

    def route(self, predictor: str, tenant_id: str, entity: Sequence[str] = ()) -> Route:
        """The tenant's model, then the global one; those that are loaded.

        An entity (repository, pipeline, branch) that a canary or challenger answers gets that first.

        Cheap: one that is not loaded is asked for and answers later requests.
        """
        ...
