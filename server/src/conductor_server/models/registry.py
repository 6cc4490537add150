"""The models that serve now. Swapping is replacing one reference: a request sees the old set or the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conductor_features.views import View
from conductor_model_store import ModelScope
from conductor_server.models.served_model import ServedModel
from conductor_server.prediction.ports import Route


class Registry:
    """Routes by predictor and tenant, worked out at each swap and only looked up by requests."""

    def __init__(self, always_read: Mapping[str, Sequence[View]]) -> None:
        """``always_read``: by predictor, the views that it reads whatever its models take; they lead each route's."""
        self._always_read = {predictor: tuple(views) for predictor, views in always_read.items()}
        self._models: dict[ModelScope, ServedModel] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._default_routes = {predictor: Route((), views) for predictor, views in self._always_read.items()}

    @property
    def predictors(self) -> frozenset[str]:
        """The predictors that there are routes for."""
        return frozenset(self._always_read)

    def route(self, predictor: str, tenant_id: str) -> Route:
        """The tenant's model, then the global one; those that there are."""
        return self._routes.get((predictor, tenant_id)) or self._default_routes[predictor]

    def get(self, scope: ModelScope) -> ServedModel | None:
        """The model that serves a scope."""
        return self._models.get(scope)

    def put(self, scope: ModelScope, model: ServedModel) -> None:
        """Let a model serve a scope from the next request on."""
        models = {**self._models, scope: model}
        default_routes = {predictor: self._route(models, predictor, "") for predictor in self._always_read}
        self._routes = {
            (found.predictor, found.tenant_id): self._route(models, found.predictor, found.tenant_id)
            for found in models
        }
        self._models, self._default_routes = models, default_routes

    def _route(self, models: Mapping[ModelScope, ServedModel], predictor: str, tenant_id: str) -> Route:
        scopes = [ModelScope(predictor, tenant_id), ModelScope(predictor)] if tenant_id else [ModelScope(predictor)]
        found = tuple(models[scope] for scope in scopes if scope in models)
        views = dict.fromkeys([*self._always_read[predictor], *(c.view for m in found for c in m.plan.views)])
        return Route(found, tuple(views))
