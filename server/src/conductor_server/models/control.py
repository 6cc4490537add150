"""Looks at and moves channels for callers of one tenant; never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from conductor_model_store import (
    CHANNELS,
    CorruptModel,
    InvalidScope,
    ModelNotFound,
    ModelScope,
    ModelStore,
    ModelStoreUnavailable,
    NoAuthority,
    Pointer,
    PointerMoved,
    PointerWatch,
    StoredVersion,
)
from conductor_model_store.errors import UntrustedModel
from conductor_rpc import exceptions
from conductor_server.models.resident import Place

_Result = TypeVar("_Result")
_LOOK_SECONDS = 0.5
_THREADS = 4


class _Subscriber:
    """What moved since a stream last told."""

    def __init__(self, wants: Callable[[Place], bool]) -> None:
        self.wants = wants
        self.moved: dict[Place, None] = {}
        self.event = asyncio.Event()


class ModelControl:
    """The model store as a tenant may use it."""

    def __init__(self, store: ModelStore, watch: PointerWatch, predictors: Collection[str]) -> None:
        """``watch``: the server's own, which its watcher polls."""
        self._store, self._watch, self._predictors = store, watch, frozenset(predictors)
        self._subscribers: set[_Subscriber] = set()
        # Of its own: a store that is slow, or asked too much, must not hold up what requests do beside the loop.
        self._threads = ThreadPoolExecutor(_THREADS, "model-control")

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def moved(self, places: Sequence[Place]) -> None:
        """Tell the streams; the watcher's."""
        for subscriber in self._subscribers:
            ours = [place for place in places if subscriber.wants(place)]
            if ours:
                subscriber.moved.update(dict.fromkeys(ours))
                subscriber.event.set()

    async def channels(self, tenant_id: str, predictor: str = "") -> list[Pointer]:
        """Where the channels of the tenant's and the global models point, in order.

        Raises:
            ModelStoreDown: the store does not answer.
        """
        wants = self._wants(tenant_id, predictor)

        def read() -> list[Pointer]:
            places = sorted(place for place in self._watch.places() if wants(place))
            found = (self._watch.pointer(*place) for place in places)
            return [pointer for pointer in found if pointer is not None]

        return await self._translated(read)

    async def model(self, scope: ModelScope) -> tuple[list[Pointer], list[StoredVersion], list[Pointer]]:
        """A model's channels, its versions and its history, newest first of each channel.

        Raises:
            ModelUnknown: there is none.
            ModelStoreDown: the store does not answer.
        """

        def read() -> tuple[list[Pointer], list[StoredVersion], list[Pointer]]:
            channels = self._store.channels(scope.predictor, scope.tenant_id)
            histories = [self._store.history(scope.predictor, scope.tenant_id, channel) for channel in channels]
            current = [history[0] for history in histories if history]
            if not current:
                raise ModelNotFound(f"{scope.resource_name} is not there")
            versions = self._store.versions(scope.predictor, scope.tenant_id)
            return current, versions, [pointer for history in histories for pointer in history]

        return await self._translated(read)

    async def promote(
        self, scope: ModelScope, version: str, channel: str, weight: float, *, actor: str, detail: str
    ) -> Pointer:
        """Point a channel at a version or at what another channel points at.

        Raises:
            ModelUnknown, ModelDamaged, ModelMoved, ModelAuthorityMissing, ModelStoreDown, InvalidRequest: it was not
                moved.
        """
        _check_channel(channel)
        return await self._translated(
            lambda: self._store.promote(
                scope.predictor, scope.tenant_id, version, channel, weight, actor=actor, detail=detail
            )
        )

    async def rollback(self, scope: ModelScope, channel: str, *, actor: str, detail: str) -> Pointer:
        """Point a channel at what it pointed at before. Raises as ``promote``."""
        _check_channel(channel)
        return await self._translated(
            lambda: self._store.rollback(scope.predictor, scope.tenant_id, channel, actor=actor, detail=detail)
        )

    async def withdraw(self, scope: ModelScope, channel: str, *, actor: str, detail: str) -> Pointer:
        """Let a channel point nowhere. Raises as ``promote``."""
        _check_channel(channel)
        return await self._translated(
            lambda: self._store.withdraw(scope.predictor, scope.tenant_id, channel, detail, actor=actor)
        )

    async def changes(
        self, tenant_id: str, predictor: str, goes_on: Callable[[], bool]
    ) -> AsyncIterator[list[Pointer]]:
        """Where everything points, then what moved, for as long as ``goes_on``.

        Raises:
            ModelStoreDown: the store does not answer.
        """
        subscriber = _Subscriber(self._wants(tenant_id, predictor))
        self._subscribers.add(subscriber)
        try:
            yield await self.channels(tenant_id, predictor)
            while goes_on():
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await subscriber.event.wait()
                except TimeoutError:
                    continue
                subscriber.event.clear()
                places, subscriber.moved = list(subscriber.moved), {}
                found = await self._translated(lambda places=places: [self._watch.pointer(*place) for place in places])  # type: ignore[misc]
                yield [pointer for pointer in found if pointer is not None]
        finally:
            self._subscribers.discard(subscriber)

    async def _translated(self, work: Callable[[], _Result]) -> _Result:
        """Do it beside the loop; the store's errors become those that callers are told of."""
        try:
            within = copy_context()  # so that what is logged there names the call
            return await asyncio.get_running_loop().run_in_executor(self._threads, within.run, work)
        except ModelNotFound as error:
            raise exceptions.ModelUnknown(str(error)) from error
        except (CorruptModel, UntrustedModel) as error:
            raise exceptions.ModelDamaged(str(error)) from error
        except NoAuthority as error:
            raise exceptions.ModelAuthorityMissing from error
        except PointerMoved as error:
            raise exceptions.ModelMoved(str(error)) from error
        except InvalidScope as error:
            raise exceptions.InvalidRequest([exceptions.Violation("", str(error))]) from error
        except ModelStoreUnavailable as error:
            raise exceptions.ModelStoreDown from error

    def _wants(self, tenant_id: str, predictor: str) -> Callable[[Place], bool]:
        def wants(place: Place) -> bool:
            scope, channel = place
            return (
                scope.tenant_id in ("", tenant_id)
                and predictor in ("", scope.predictor)
                and scope.predictor in self._predictors
                and channel in CHANNELS
            )

        return wants


def _check_channel(channel: str) -> None:
    if channel not in CHANNELS:
        raise exceptions.InvalidRequest([exceptions.Violation("channel", f"must be one of {', '.join(CHANNELS)}")])
