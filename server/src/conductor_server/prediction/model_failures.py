"""Tells of models that could not answer."""

from __future__ import annotations

import logging

from conductor_rpc import names
from conductor_rpc.call import Call
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.ports import Model

LACKS_REQUIRED = "a column that it requires is missing"
_LOG = logging.getLogger(__name__)


class ModelFailures:
    """Those of one predictor's models."""

    def __init__(self, predictor: str, telemetry: Telemetry) -> None:
        self._predictor, self._telemetry = predictor, telemetry
        self._told: set[str] = set()
        telemetry.count(names.MODEL_FAILURES, {names.PREDICTOR: predictor}, 0)  # an alert sees the first after a zero

    def note(self, model: Model, text: str, call: Call | None) -> None:
        """Count each failure, log a version's first one: a log that grows with each request hides the rest.

        Each stands in the trace of the call that it kept from its answer.
        """
        tell(model, text, call)
        self._telemetry.count(names.MODEL_FAILURES, {names.PREDICTOR: self._predictor})
        if model.label.version not in self._told:
            self._told.add(model.label.version)
            _LOG.error("%s %s failed, the next rung answers: %s", model.label.name, model.label.version, text)


def tell(model: Model, text: str, call: Call | None) -> None:
    """Have the call's trace tell why a model did not answer it."""
    if call is not None:
        call.attributes[names.MODEL_FAILURE] = f"{model.label.name}@{model.label.version}: {text}"
