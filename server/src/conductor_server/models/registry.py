"""Which models answer whom. Swapping is replacing one reference: a request sees the old set or the new one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from conductor_features.views import View
from conductor_model_store import CHAMPION, ModelScope
from conductor_server.models.resident import Place, ResidentModels
from conductor_server.models.served_model import ServedModel
from conductor_server.prediction.answers import Fallback
from conductor_server.prediction.ports import Route


class Registry:
    """Routes by predictor and tenant, worked out when first asked for and looked up from then on."""

    def __init__(
        self,
        always_read: Mapping[str, Sequence[View]],
        *,
        memory_budget_bytes: int,
        pinned_tenants: Collection[str] = (),
    ) -> None:
        """Start without models.

        Args:
            always_read: by predictor, the views that it reads whatever its models take; they lead each route's.
            memory_budget_bytes: what the loaded models may be reckoned to take together.
            pinned_tenants: whose models are never dropped. Global ones never are.
        """
        self._always_read = {predictor: tuple(views) for predictor, views in always_read.items()}
        self._pinned_tenants = frozenset(pinned_tenants) | {""}
        self._known: set[tuple[str, str]] = set()
        self._routes: dict[tuple[str, str], tuple[Place, Route]] = {}
        self._default_routes: dict[tuple[str, Fallback], Route] = {}
        self._ask: Callable[[Place], bool] = lambda _: False
        self.resident = ResidentModels(memory_budget_bytes, self.is_pinned, self._forget_route)
        """What is loaded."""
        self.hit_count = 0
        """Requests of tenants with a model of their own that was there."""
        self.miss_count = 0
        """Requests of tenants with a model of their own that was not."""

    @property
    def predictors(self) -> frozenset[str]:
        """The predictors that there are routes for."""
        return frozenset(self._always_read)

    @property
    def known_count(self) -> int:
        """Scopes that have models, loaded or not."""
        return len(self._known)

    def is_pinned(self, place: Place) -> bool:
        """Whether a model is never dropped."""
        return place[0].tenant_id in self._pinned_tenants

    def on_miss(self, ask: Callable[[Place], bool]) -> None:
        """Whom to ask for a model that is not there; it says whether one may be expected."""
        self._ask = ask

    def know(self, scopes: Iterable[ModelScope]) -> None:
        """These scopes have models, loaded or not."""
        self._known.update((scope.predictor, scope.tenant_id) for scope in scopes)

    def route(self, predictor: str, tenant_id: str) -> Route:
        """The tenant's model, then the global one; those that are loaded. Asks for the tenant's where it is not."""
        found = self._routes.get((predictor, tenant_id))
        if found is not None:
            self.hit_count += 1
            self.resident.touch(found[0])
            return found[1]
        if (predictor, tenant_id) not in self._known or not tenant_id:
            return self._default_route(predictor, Fallback.NONE)
        place = (ModelScope(predictor, tenant_id), CHAMPION)
        if place in self.resident:
            self.hit_count += 1
            self.resident.touch(place)
            route = self._made(predictor, tenant_id, Fallback.NONE)
            self._routes[predictor, tenant_id] = (place, route)
            return route
        self.miss_count += 1
        expected = self._ask(place)
        return self._default_route(predictor, Fallback.MODEL_LOADING if expected else Fallback.MODEL_UNAVAILABLE)

    def get(self, place: Place) -> ServedModel | None:
        """The model of a place, if it is loaded."""
        return self.resident.get(place)

    def put(self, place: Place, model: ServedModel) -> list[ServedModel]:
        """Let a model serve a place from the next request on; returns as ``ResidentModels.put``."""
        self._known.add((place[0].predictor, place[0].tenant_id))
        gone = self.resident.put(place, model)
        self._forget_route(place)
        return gone

    def _forget_route(self, place: Place) -> None:
        scope = place[0]
        if scope.tenant_id:
            self._routes.pop((scope.predictor, scope.tenant_id), None)
        else:  # it stands on every route
            self._routes.clear()
            self._default_routes.clear()

    def _default_route(self, predictor: str, fallback: Fallback) -> Route:
        route = self._default_routes.get((predictor, fallback))
        if route is None:
            route = self._default_routes[predictor, fallback] = self._made(predictor, "", fallback)
        return route

    def _made(self, predictor: str, tenant_id: str, fallback: Fallback) -> Route:
        scopes = [ModelScope(predictor, tenant_id), ModelScope(predictor)] if tenant_id else [ModelScope(predictor)]
        models = [self.resident.get((scope, CHAMPION)) for scope in scopes]
        found = tuple(model for model in models if model is not None)
        views = dict.fromkeys([*self._always_read[predictor], *(c.view for m in found for c in m.plan.views)])
        return Route(found, tuple(views), fallback)
