"""The models that tensors may be run on: those that predictions are made with."""

from __future__ import annotations

from collections.abc import Collection

from conductor_server.inference.ports import Serving
from conductor_server.prediction.answers import Fallback
from conductor_server.prediction.ports import Models

_NOTHING = Serving((), Fallback.NONE)


class ServingModels:
    """Looks at the same routes as the predictors do."""

    def __init__(self, models: Models, predictors: Collection[str]) -> None:
        self._models, self._predictors = models, frozenset(predictors)

    def serving(self, predictor: str, tenant_id: str) -> Serving:
        """What there is for a tenant; nothing for an unknown predictor."""
        if predictor not in self._predictors:
            return _NOTHING
        route = self._models.route(predictor, tenant_id)
        return Serving(route.models, route.fallback)
