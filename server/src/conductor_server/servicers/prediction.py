"""``conductor.prediction.v1.PredictionService``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc.aio

from conductor.prediction.v1 import build_duration_pb2 as messages
from conductor.prediction.v1 import prediction_service_pb2_grpc as stubs
from conductor.prediction.v1.prediction_service_pb2 import DESCRIPTOR
from conductor_rpc import errors, names, rules
from conductor_rpc.call import Stage, current_call, current_deadline
from conductor_rpc.exceptions import ConductorError, TenantMismatch
from conductor_rpc.items import ItemStreams
from conductor_rpc.server import Service
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.work import Criticality, Work
from conductor_server.prediction.answers import Origin, Prediction
from conductor_server.prediction.asked import Asked
from conductor_server.prediction.build_duration import BuildDurationPredictor
from conductor_server.prediction.coalescing import Coalescer
from conductor_server.prediction.columns import Question
from conductor_server.servicers import trace_notes
from conductor_server.servicers.translation import fill, to_question, to_response

SERVICE_NAME = DESCRIPTOR.services_by_name["PredictionService"].full_name
_PART = 256
"""Items of a batch that are answered together: between parts others have their turn, and a late batch is cancelled."""
_UNARY = f"/{SERVICE_NAME}/PredictBuildDuration"
_Context = grpc.aio.ServicerContext[Any, Any]
_WORK = {
    "PredictBuildDuration": Work(alike=True, frequent=True),
    "BatchPredictBuildDurations": Work(Criticality.BATCH, question_count=lambda request: len(request.requests)),
}


class PredictionServicer(stubs.PredictionServiceServicer):
    """Translates and delegates. Credentials, tenant and rules were checked on the way in."""

    def __init__(
        self, build_duration: BuildDurationPredictor, telemetry: Telemetry, item_streams: Callable[[], ItemStreams]
    ) -> None:
        self._build_duration, self._telemetry, self._item_streams = build_duration, telemetry, item_streams
        self._together = Coalescer(build_duration.predict, _batch_begins, _batch_ends, apart=build_duration.hurry)

    async def PredictBuildDuration(  # noqa: N802 - the contract's name
        self, request: messages.PredictBuildDurationRequest, context: _Context
    ) -> messages.PredictBuildDurationResponse:
        """Predict how long one build will take."""
        return await self._predict_build_duration(request)

    async def _predict_build_duration(
        self, request: messages.PredictBuildDurationRequest
    ) -> messages.PredictBuildDurationResponse:
        question, call = to_question(request), current_call()
        waiting = Stage(names.COALESCE_WAIT, time.perf_counter())
        if call is not None:
            call.note(waiting)
        resuming = Stage(names.COALESCE_RESUME, 0.0)
        asked = Asked(request.tenant_id, question, current_deadline(), call, waiting, resuming)
        answer = await self._together.ask(asked)
        resuming.ended = time.perf_counter()
        if not isinstance(answer, Prediction):
            raise answer
        response = to_response(answer)
        notes = trace_notes.of_answer(answer.origin, response.provenance.prediction_id)
        self._telemetry.annotate(notes, fell_back=trace_notes.fell_back(answer.origin))
        return response

    async def BatchPredictBuildDurations(  # noqa: N802 - the contract's name
        self, request: messages.BatchPredictBuildDurationsRequest, context: _Context
    ) -> messages.BatchPredictBuildDurationsResponse:
        """Predict how long each of many builds will take; items fail one by one."""
        response = messages.BatchPredictBuildDurationsResponse()
        origins: list[Origin | None] = []
        for first in range(0, len(request.requests), _PART):
            origins += await self._answer_part(request.tenant_id, request.requests[first : first + _PART], response)
        self._telemetry.annotate(trace_notes.of_batch(origins), fell_back=any(map(trace_notes.fell_back, origins)))
        return response

    async def _answer_part(
        self,
        tenant_id: str,
        requests: Sequence[messages.PredictBuildDurationRequest],
        response: messages.BatchPredictBuildDurationsResponse,
    ) -> list[Origin | None]:
        """Add a result for each; returns where the answers come from, None for an error."""
        with self._telemetry.span(names.BATCH_CHECK):
            items = [_item(tenant_id, item) for item in requests]
        deadline, call = current_deadline(), current_call()
        asked = [Asked(tenant_id, item, deadline, call) for item in items if isinstance(item, Question)]
        answers = iter(await self._build_duration.predict(asked) if asked else [])
        origins: list[Origin | None] = []
        with self._telemetry.span(names.BATCH_ANSWER):
            for item in items:
                answer = next(answers) if isinstance(item, Question) else item
                result = response.results.add()
                if isinstance(answer, Prediction):
                    fill(result.response, answer)
                    origins.append(answer.origin)
                else:
                    result.error.CopyFrom(errors.to_status(answer))
                    origins.append(None)
        return origins

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


def _batch_begins(asked: Sequence[Asked]) -> None:
    """Who waited for a batch waits no more; a trace tells of how many its answer was one."""
    now, together = time.perf_counter(), str(len(asked))
    for one in asked:
        if one.waiting is not None:
            one.waiting.ended = now
        if one.call is not None:
            one.call.attributes[names.ANSWERED_TOGETHER] = together


def _batch_ends(asked: Sequence[Asked]) -> None:
    """Their answers are there, and each call goes on when it is its turn."""
    now = time.perf_counter()
    for one in asked:
        if one.resuming is not None and one.call is not None:
            one.resuming.began = now
            one.call.note(one.resuming)


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
