"""Probabilities of tests: by the models of a route, else by the tests' history, else by how often tests fail at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from conductor_features.views import TEST_HISTORY
from conductor_rpc import names
from conductor_rpc.call import current_call
from conductor_rpc.exceptions import NoPrediction
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.answers import NO_MODEL, Fallback, Method, ModelLabel, Origin, Variant
from conductor_server.prediction.columns import ColumnPlan
from conductor_server.prediction.input_counts import InputCounts
from conductor_server.prediction.model_failures import LACKS_REQUIRED, ModelFailures
from conductor_server.prediction.ports import Model, ModelFailed, Route
from conductor_server.prediction.run_notes import notes_of_run
from conductor_server.testing.gathering import TestInputs, gather
from conductor_server.testing.history import failure_rates
from conductor_server.testing.questions import TEST_FAILURE
from conductor_server.testing.rows import Array, Rows


@dataclass(frozen=True)
class Known:
    """What is known of the tests of a run."""

    moment_us: int
    rows: Mapping[str, Rows]
    """By view, the rows that may be used."""
    requested: Mapping[str, Array]
    """Request columns."""
    unreadable: tuple[str, ...] = ()
    """``view.field`` of what request columns are made of and could not be read."""
    complete: bool = True
    """All tests are there that should be."""

    @property
    def history(self) -> Rows:
        """Of ``test_history``."""
        return self.rows[TEST_HISTORY.key]


@dataclass(frozen=True)
class Scored:
    """Probabilities, and where they come from."""

    probabilities: Array
    """What float32 can hold: that is what is answered, and what promises are made of."""
    origin: Origin
    model: Model | None = None
    """Which model answered, and on what; None where none did."""
    inputs: TestInputs | None = None


ByHistory = Callable[[Rows, float | None], Array | None]
"""Probabilities by rows of ``test_history``, and what they are on the whole, if that is known; None for no rows."""


class Asking:
    """Asks the models of one predictor about many tests."""

    def __init__(
        self, telemetry: Telemetry, predictor: str = TEST_FAILURE, by_history: ByHistory = failure_rates
    ) -> None:
        """``by_history`` answers where no model does."""
        self._predictor, self._telemetry, self._by_history = predictor, telemetry, by_history
        self._failures = ModelFailures(predictor, telemetry)
        self._counts = InputCounts(predictor, telemetry)

    def ask(self, route: Route, known: Known) -> Scored:
        """Takes a while for many tests, and is fit for a thread. Raises NoPrediction where nothing can be said."""
        scored = self._scored(route, known)
        attributes = {names.PREDICTOR: self._predictor, names.PREDICTION_METHOD: str(scored.origin.method)}
        self._telemetry.count(names.PREDICTIONS, attributes, len(scored.probabilities))
        return replace(scored, origin=_labelled(route, scored.origin))

    def _scored(self, route: Route, known: Known) -> Scored:
        # Without any history a model would take every test for a new one: what tests do on the whole is nearer.
        if not known.history.unreadable.all():
            for rung, model in enumerate(route.models):
                scored = self._by_model(model, known, counted=rung == 0)
                if scored is not None:
                    return scored
        lacks = _unreadable(route.models[0].plan, known) if route.models else ()
        rate, label = _overall(route)
        rates = self._by_history(known.history, rate)
        if rates is not None:
            return Scored(_answered(rates), Origin(Method.HISTORY, missing_features=lacks))
        if rate is None:
            raise NoPrediction
        return Scored(_answered(np.full(len(known.history), rate)), Origin(Method.DEFAULT, label, lacks))

    def _by_model(self, model: Model, known: Known, *, counted: bool) -> Scored | None:
        inputs = gather(model.plan, known.moment_us, known.rows, known.requested)
        if counted:
            self._count(model.plan, known)
        if not inputs.answerable.all():
            self._failures.note(model, LACKS_REQUIRED, current_call())
            return None
        try:
            told = notes_of_run(model.label, len(inputs.inputs))
            with self._telemetry.stage(names.MODEL_RUN, told):
                [probabilities] = model.score(inputs.inputs).T
        except ModelFailed as error:
            self._failures.note(model, str(error), current_call())
            return None
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            self._failures.note(model, "it answered what is no probability", current_call())
            return None
        lacks = _unreadable(model.plan, known)
        degraded = bool(lacks) or not known.complete
        origin = Origin(Method.MODEL_DEGRADED if degraded else Method.MODEL, model.label, lacks)
        return Scored(_answered(probabilities), origin, model, inputs)

    def _count(self, plan: ColumnPlan, known: Known) -> None:
        gone = {part.view.key: int((~known.rows[part.view.key].usable).sum()) for part in plan.views}
        missing = {name: gone[part.view.key] for part in plan.views for name in part.names if gone[part.view.key]}
        self._counts.add_columns(len(known.history), missing)


def _unreadable(plan: ColumnPlan, known: Known) -> tuple[str, ...]:
    """``view.field`` of what a model takes and could not be read, or not of all tests."""
    of_views = (name for part in plan.views if known.rows[part.view.key].unreadable.any() for name in part.names)
    return (*of_views, *(known.unreadable if plan.requests else ()))


def _answered(probabilities: Array) -> Array:
    return probabilities.astype(np.float32).astype(np.float64)


def _overall(route: Route) -> tuple[float | None, ModelLabel]:
    """How often tests fail, by the first model that tells."""
    for model in route.models:
        if model.statistics.overall_rate is not None:
            return model.statistics.overall_rate, model.label
    return None, NO_MODEL


def _labelled(route: Route, origin: Origin) -> Origin:
    """With the reason where it is not by the best model that there is for the tenant."""
    if route.fallback is not Fallback.NONE or not route.models:
        return origin._replace(fallback=route.fallback)
    if origin.method not in (Method.MODEL, Method.MODEL_DEGRADED) or origin.model != route.models[0].label:
        return origin._replace(fallback=Fallback.MODEL_FAILED)
    return origin if route.variant is Variant.CHAMPION else origin._replace(variant=route.variant)
