"""Which models answer whom. Swapping is replacing one reference: a request sees the old set or the new one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from conductor_features.views import View
from conductor_model_store import CANARY, CHALLENGER, CHAMPION, SHADOW, ModelScope, Pointer
from conductor_server.models.resident import Place, ResidentModels
from conductor_server.models.served_model import ServedModel
from conductor_server.models.shares import place_of
from conductor_server.prediction.answers import Fallback, Variant
from conductor_server.prediction.ports import Route

_WEIGHTED = {CANARY: Variant.CANARY, CHALLENGER: Variant.CHALLENGER}
_Key = tuple[str, str]
"""A predictor and a tenant, empty for the global model."""


@dataclass(frozen=True, slots=True)
class _Share:
    """A variant that answers entities below a bound."""

    below: float
    place: Place
    route: Route


@dataclass(frozen=True, slots=True)
class _Standing:
    """What answers one owner's requests."""

    place: Place
    route: Route
    shares: tuple[_Share, ...]
    absent: tuple[Place, ...]
    """Variants that are not loaded."""


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
        self._known: set[_Key] = set()
        self._variants: dict[_Key, dict[str, Pointer]] = {}
        self._standings: dict[_Key, _Standing] = {}
        self._fallback_routes: dict[tuple[str, Fallback], Route] = {}
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
        """These scopes have champions, loaded or not."""
        self._known.update((scope.predictor, scope.tenant_id) for scope in scopes)

    def set_variant(self, place: Place, pointer: Pointer | None) -> None:
        """A channel beside the champion points there now; None or withdrawn for nowhere."""
        scope, channel = place
        of_scope = self._variants.setdefault((scope.predictor, scope.tenant_id), {})
        if pointer is None or pointer.withdrawn:
            of_scope.pop(channel, None)
            self.resident.remove(place)
        else:
            of_scope[channel] = pointer
        self._forget_route(place)

    def variant(self, place: Place) -> Pointer | None:
        """Where a channel beside the champion points."""
        scope, channel = place
        return self._variants.get((scope.predictor, scope.tenant_id), {}).get(channel)

    def canaries(self) -> list[tuple[Place, Pointer]]:
        """Every canary that answers."""
        return [
            ((ModelScope(*key), CANARY), of_scope[CANARY])
            for key, of_scope in self._variants.items()
            if CANARY in of_scope
        ]

    def route(self, predictor: str, tenant_id: str, entity: Sequence[str] = ()) -> Route:
        """The tenant's model, then the global one; those that are loaded. Asks for those that are not.

        An entity that a canary or challenger answers gets that one first.
        """
        key = (predictor, tenant_id)
        own = tenant_id != "" and key in self._known
        standing = self._standings.get(key if own else (predictor, ""))
        if standing is None:
            place = (ModelScope(predictor, tenant_id if own else ""), CHAMPION)
            if own and place not in self.resident:
                self.miss_count += 1
                expected = self._ask(place)
                return self._fallback_route(
                    predictor, Fallback.MODEL_LOADING if expected else Fallback.MODEL_UNAVAILABLE
                )
            standing = self._stand(place)
        if own:
            self.hit_count += 1
            self.resident.touch(standing.place)
        for absent in standing.absent:
            self._ask(absent)
        if standing.shares and entity:
            position = place_of(predictor, tenant_id, entity)
            for share in standing.shares:
                if position < share.below:
                    self.resident.touch(share.place)
                    return share.route
        return standing.route

    def get(self, place: Place) -> ServedModel | None:
        """The model of a place, if it is loaded."""
        return self.resident.get(place)

    def put(self, place: Place, model: ServedModel) -> list[ServedModel]:
        """Let a model serve a place from the next request on; returns as ``ResidentModels.put``."""
        if place[1] == CHAMPION:
            self.know([place[0]])
        gone = self.resident.put(place, model)
        self._forget_route(place)
        return gone

    def drop(self, place: Place) -> list[ServedModel]:
        """Let no model serve a place from the next request on; returns as ``ResidentModels.put``."""
        gone = self.resident.remove(place)
        self._forget_route(place)
        return gone

    def _forget_route(self, place: Place) -> None:
        scope, channel = place
        if scope.tenant_id or channel != CHAMPION:
            self._standings.pop((scope.predictor, scope.tenant_id), None)
        else:  # it stands on every route
            self._standings.clear()
            self._fallback_routes.clear()

    def _stand(self, place: Place) -> _Standing:
        scope = place[0]
        champion, last = self.resident.get(place), self._global(scope)
        variants = self._variants.get((scope.predictor, scope.tenant_id), {})
        loaded = {channel: self.resident.get((scope, channel)) for channel in variants}
        shadow = loaded.get(SHADOW) if champion is not None else None
        route = self._made(scope.predictor, [champion, last], beside=shadow)
        shares, below = [], 0.0
        for channel, variant in _WEIGHTED.items():
            if channel not in variants:
                continue
            # The bounds are the same whether it is loaded or not: nobody else gets its entities meanwhile.
            below += variants[channel].weight
            model = loaded[channel]
            if model is not None and variants[channel].weight:
                made = self._made(scope.predictor, [model, champion, last], variant=variant, beside=champion)
                shares.append(_Share(below, (scope, channel), made))
            else:
                shares.append(_Share(below, place, route))
        absent = tuple((scope, channel) for channel, model in loaded.items() if model is None)
        standing = _Standing(place, route, tuple(shares), absent)
        self._standings[scope.predictor, scope.tenant_id] = standing
        return standing

    def _global(self, scope: ModelScope) -> ServedModel | None:
        return self.resident.get((ModelScope(scope.predictor), CHAMPION)) if scope.tenant_id else None

    def _fallback_route(self, predictor: str, fallback: Fallback) -> Route:
        route = self._fallback_routes.get((predictor, fallback))
        if route is None:
            last = self.resident.get((ModelScope(predictor), CHAMPION))
            route = self._fallback_routes[predictor, fallback] = self._made(predictor, [last], fallback)
        return route

    def _made(
        self,
        predictor: str,
        models: Sequence[ServedModel | None],
        fallback: Fallback = Fallback.NONE,
        variant: Variant = Variant.CHAMPION,
        beside: ServedModel | None = None,
    ) -> Route:
        found = tuple(model for model in models if model is not None)
        readers = found if beside is None else (*found, beside)
        views = dict.fromkeys([*self._always_read[predictor], *(c.view for m in readers for c in m.plan.views)])
        return Route(found, tuple(views), fallback, variant, beside)
