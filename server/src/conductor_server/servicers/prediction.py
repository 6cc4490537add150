"""``conductor.prediction.v1.PredictionService``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc.aio

from conductor.prediction.v1 import build_duration_pb2 as messages
from conductor.prediction.v1 import prediction_service_pb2_grpc as stubs
from conductor.prediction.v1.prediction_service_pb2 import DESCRIPTOR
from conductor_rpc import errors, names, rules
from conductor_rpc.call import current_call, current_deadline
from conductor_rpc.exceptions import ConductorError, TenantMismatch
from conductor_rpc.items import ItemStreams
from conductor_rpc.server import Service
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.work import Criticality, Work
from conductor_server.prediction.answers import Fallback, Prediction
from conductor_server.prediction.build_duration import Asked, BuildDurationPredictor
from conductor_server.prediction.coalescing import Coalescer
from conductor_server.prediction.columns import Question
from conductor_server.servicers.translation import fill, to_question, to_response

SERVICE_NAME = DESCRIPTOR.services_by_name["PredictionService"].full_name
_PART = 256
"""Items of a batch that are answered together: between parts others have their turn, and a late batch is cancelled."""
_UNARY = f"/{SERVICE_NAME}/PredictBuildDuration"
_Context = grpc.aio.ServicerContext[Any, Any]
_WORK = {
    "PredictBuildDuration": Work(alike=True),
    "BatchPredictBuildDurations": Work(Criticality.BATCH, question_count=lambda request: len(request.requests)),
}


class PredictionServicer(stubs.PredictionServiceServicer):
    """Translates and delegates. Credentials, tenant and rules were checked on the way in."""

    def __init__(
        self, build_duration: BuildDurationPredictor, telemetry: Telemetry, item_streams: Callable[[], ItemStreams]
    ) -> None:
        self._build_duration, self._telemetry, self._item_streams = build_duration, telemetry, item_streams
        self._together = Coalescer(build_duration.predict)

    async def PredictBuildDuration(  # noqa: N802 - the contract's name
        self, request: messages.PredictBuildDurationRequest, context: _Context
    ) -> messages.PredictBuildDurationResponse:
        """Predict how long one build will take."""
        return await self._predict_build_duration(request)

    async def _predict_build_duration(
        self, request: messages.PredictBuildDurationRequest
    ) -> messages.PredictBuildDurationResponse:
        answer = await self._together.ask(_asked(request.tenant_id, to_question(request)))
        if not isinstance(answer, Prediction):
            raise answer
        response = to_response(answer)
        self._tell_trace(answer, response.provenance.prediction_id)
        return response

    async def BatchPredictBuildDurations(  # noqa: N802 - the contract's name
        self, request: messages.BatchPredictBuildDurationsRequest, context: _Context
    ) -> messages.BatchPredictBuildDurationsResponse:
        """Predict how long each of many builds will take; items fail one by one."""
        response = messages.BatchPredictBuildDurationsResponse()
        for first in range(0, len(request.requests), _PART):
            await self._answer_part(request.tenant_id, request.requests[first : first + _PART], response)
        return response

    async def _answer_part(
        self,
        tenant_id: str,
        requests: Sequence[messages.PredictBuildDurationRequest],
        response: messages.BatchPredictBuildDurationsResponse,
    ) -> None:
        items = [_item(tenant_id, item) for item in requests]
        deadline, call = current_deadline(), current_call()
        asked = [Asked(tenant_id, item, deadline, call) for item in items if isinstance(item, Question)]
        answers = iter(await self._build_duration.predict(asked) if asked else [])
        for item in items:
            answer = next(answers) if isinstance(item, Question) else item
            result = response.results.add()
            if isinstance(answer, Prediction):
                fill(result.response, answer)
            else:
                result.error.CopyFrom(errors.to_status(answer))

    async def StreamBuildDurationPredictions(  # type: ignore[override]  # noqa: N802 - it writes to the context itself
        self, requests: AsyncIterator[messages.StreamBuildDurationPredictionsRequest], context: _Context
    ) -> None:
        """Predict how long builds will take, as they are asked for."""
        await self._item_streams().answer(
            requests,
            context.write,
            messages.StreamBuildDurationPredictionsResponse,
            _UNARY,
            self._predict_build_duration,
        )

    def _tell_trace(self, answer: Prediction, prediction_id: str) -> None:
        """What answered, for who asks why it was this answer, or a slow one."""
        origin = answer.origin
        attributes = {
            names.PREDICTION_ID: prediction_id,
            names.PREDICTION_METHOD: origin.method.value,
            names.MODEL_NAME: origin.model.name,
            names.MODEL_VERSION: origin.model.version,
            names.VARIANT: origin.variant.value,
            names.FALLBACK_REASON: origin.fallback.value,
        }
        self._telemetry.annotate(attributes, fell_back=origin.fallback is not Fallback.NONE)


def _asked(tenant_id: str, question: Question) -> Asked:
    return Asked(tenant_id, question, current_deadline(), current_call())


def _item(tenant_id: str, item: messages.PredictBuildDurationRequest) -> Question | ConductorError:
    """An item's question, or what is wrong with it."""
    if item.tenant_id not in ("", tenant_id):
        return TenantMismatch()
    item.tenant_id = tenant_id
    try:
        rules.validate(item)
    except ConductorError as error:
        return error
    return to_question(item)


def prediction_service(
    build_duration: BuildDurationPredictor, telemetry: Telemetry, item_streams: Callable[[], ItemStreams]
) -> Service:
    """The service, ready to be served."""
    servicer = PredictionServicer(build_duration, telemetry, item_streams)
    return Service(
        SERVICE_NAME, lambda server: stubs.add_PredictionServiceServicer_to_server(servicer, server), work=_WORK
    )
