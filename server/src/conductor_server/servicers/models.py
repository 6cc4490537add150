"""``conductor.model.v1.ModelService``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Protocol

import grpc.aio

from conductor.model.v1 import model_service_pb2 as messages
from conductor.model.v1 import model_service_pb2_grpc as stubs
from conductor_model_store import CHAMPION, CHANNELS, InvalidScope, ModelScope, Pointer
from conductor_rpc.call import current_call
from conductor_rpc.exceptions import InvalidRequest, ModelAdminRequired, Stopping, Violation
from conductor_rpc.roles import MODELS_ADMIN
from conductor_rpc.server import Service
from conductor_rpc.work import Work
from conductor_server.models.comparison import Comparison
from conductor_server.models.control import ModelControl
from conductor_server.prediction.answers import ModelLabel, Variant

SERVICE_NAME = messages.DESCRIPTOR.services_by_name["ModelService"].full_name
_Context = grpc.aio.ServicerContext[Any, Any]


class _OfModel(Protocol):
    """A request about one model."""

    tenant_id: str
    predictor: str
    global_model: bool


class ModelServicer(stubs.ModelServiceServicer):
    """Translates and delegates. Credentials, tenant and rules were checked on the way in."""

    def __init__(self, control: ModelControl, comparison: Comparison, is_serving: Callable[[], bool]) -> None:
        self._control, self._comparison, self._is_serving = control, comparison, is_serving

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: messages.ListModelsRequest, context: _Context
    ) -> messages.ListModelsResponse:
        """The caller's and the global models that are in use."""
        found = await self._control.channels(request.tenant_id, request.predictor)
        return messages.ListModelsResponse(channels=[_channel(pointer) for pointer in found if not pointer.withdrawn])

    async def GetModel(  # noqa: N802 - the contract's name
        self, request: messages.GetModelRequest, context: _Context
    ) -> messages.GetModelResponse:
        """One model."""
        scope = _scope(request)
        channels, versions, history = await self._control.model(scope)
        response = messages.GetModelResponse(channels=map(_channel, channels), history=_moves(history))
        for stored in versions:
            response.versions.add(version=stored.version).store_time.FromDatetime(stored.stored_time)
        told = {(pointer.version, pointer.channel) for pointer in history if pointer.version}
        response.statistics.extend(
            found for version, channel in sorted(told) if (found := self._statistics(scope, version, channel))
        )
        return response

    async def PromoteModel(  # noqa: N802 - the contract's name
        self, request: messages.PromoteModelRequest, context: _Context
    ) -> messages.PromoteModelResponse:
        """Point a channel at a version."""
        scope = _scope(request, moves=True)
        channel, detail = request.channel or CHAMPION, request.detail
        pointer = await self._control.promote(
            scope, request.version, channel, request.weight, actor=_actor(), detail=detail
        )
        return messages.PromoteModelResponse(channel=_channel(pointer))

    async def RollbackModel(  # noqa: N802 - the contract's name
        self, request: messages.RollbackModelRequest, context: _Context
    ) -> messages.RollbackModelResponse:
        """Point a channel at what it pointed at before."""
        scope, channel = _scope(request, moves=True), request.channel or CHAMPION
        pointer = await self._control.rollback(scope, channel, actor=_actor(), detail=request.detail)
        return messages.RollbackModelResponse(channel=_channel(pointer))

    async def WithdrawModel(  # noqa: N802 - the contract's name
        self, request: messages.WithdrawModelRequest, context: _Context
    ) -> messages.WithdrawModelResponse:
        """Let a channel point nowhere."""
        scope, channel = _scope(request, moves=True), request.channel
        pointer = await self._control.withdraw(scope, channel, actor=_actor(), detail=request.detail)
        return messages.WithdrawModelResponse(channel=_channel(pointer))

    async def WatchModels(  # noqa: N802 - the contract's name
        self, request: messages.WatchModelsRequest, context: _Context
    ) -> AsyncIterator[messages.WatchModelsResponse]:
        """Everything, then what changes."""
        async for pointers in self._control.changes(request.tenant_id, request.predictor, self._is_serving):
            yield messages.WatchModelsResponse(channels=map(_channel, pointers))
        raise Stopping

    def _statistics(self, scope: ModelScope, version: str, channel: str) -> messages.VariantStatistics | None:
        if channel == CHAMPION or channel not in CHANNELS:
            return None
        found = self._comparison.known(ModelLabel(scope.resource_name, version, ""), Variant(channel))
        if found is None:
            return None
        return messages.VariantStatistics(
            version=version,
            channel=channel,
            compared_count=found.compared_count,
            failure_count=found.failure_count,
            dropped_count=found.dropped_count,
            mean_difference=found.mean_difference,
            p50_difference=found.disagreement(50),
            p95_difference=found.disagreement(95),
            latency_ratio=found.latency_ratio,
        )


def _scope(request: _OfModel, *, moves: bool = False) -> ModelScope:
    """The model that a request is about.

    Raises:
        ModelAdminRequired: it would move a global one, and may not.
        InvalidRequest: no predictor can be called that.
    """
    call = current_call()
    identity = call.identity if call is not None else None
    if request.global_model and moves and identity is not None and MODELS_ADMIN not in identity.scopes:
        raise ModelAdminRequired
    try:
        return ModelScope(request.predictor, "" if request.global_model else request.tenant_id)
    except InvalidScope as error:
        raise InvalidRequest([Violation("predictor", str(error))]) from error


def _actor() -> str:
    """Who asks, as the token says."""
    call = current_call()
    return call.identity.subject if call is not None and call.identity is not None else ""


def _moves(history: Sequence[Pointer]) -> Iterator[messages.ModelChannel]:
    """``history``: newest first of each channel."""
    for pointer, before in zip_longest(history, history[1:]):
        move = _channel(pointer)
        if before is not None and before.channel == pointer.channel:
            move.previous_version = before.version
        yield move


def _channel(pointer: Pointer) -> messages.ModelChannel:
    channel = messages.ModelChannel(
        model_name=pointer.scope.resource_name,
        channel=pointer.channel,
        generation=pointer.generation,
        version=pointer.version,
        manifest_digest=pointer.manifest_digest,
        weight=pointer.weight,
        reason=pointer.reason,
        detail=pointer.detail,
        actor=pointer.actor,
        key_ids=[key_id for key_id, _ in pointer.signatures],
    )
    channel.move_time.FromDatetime(pointer.published_time)
    return channel


def model_service(control: ModelControl, comparison: Comparison, is_serving: Callable[[], bool]) -> Service:
    """The service, ready to be served."""
    servicer = ModelServicer(control, comparison, is_serving)
    work = {"WatchModels": Work(open_ended=True)}
    return Service(SERVICE_NAME, lambda server: stubs.add_ModelServiceServicer_to_server(servicer, server), work=work)
