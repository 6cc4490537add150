"""``conductor.prediction.v1.PredictionService``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import chain
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
from conductor_server.prediction.answers import Fallback, Prediction
from conductor_server.prediction.build_duration import Asked, BuildDurationPredictor
from conductor_server.prediction.coalescing import Coalescer
from conductor_server.prediction.columns import Question
from conductor_server.servicers.translation import fill, to_question, to_response

SERVICE_NAME = DESCRIPTOR.services_by_name["PredictionService"].full_name
_MOST_TOLD = 8
_UNARY = f"/{SERVICE_NAME}/PredictBuildDuration"
_Context = grpc.aio.ServicerContext[Any, Any]


class PredictionServicer(stubs.PredictionServiceServicer):
    """Translates and delegates. Credentials, tenant and rules were checked on the way in."""

    def __init__(
        self, build_duration: BuildDurationPredictor, telemetry: Telemetry, item_streams: Callable[[], ItemStreams]
    ) -> None:
        self._build_duration, self._telemetry, self._item_streams = build_duration, telemetry, item_streams
        self._together = Coalescer(build_duration.predict, _batch_begins)

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
        answer = await self._together.ask(Asked(request.tenant_id, question, current_deadline(), call, waiting))
        if not isinstance(answer, Prediction):
            raise answer
        response = to_response(answer)
        self._tell_trace(answer, response.provenance.prediction_id)
        return response

    async def BatchPredictBuildDurations(  # noqa: N802 - the contract's name
        self, request: messages.BatchPredictBuildDurationsRequest, context: _Context
    ) -> messages.BatchPredictBuildDurationsResponse:
        """Predict how long each of many builds will take; items fail one by one."""
        items = [_item(request.tenant_id, item) for item in request.requests]
        questions = [item for item in items if isinstance(item, Question)]
        deadline, call = current_deadline(), current_call()
        asked = [Asked(request.tenant_id, question, deadline, call) for question in questions]
        found = await self._build_duration.predict(asked) if asked else []
        self._tell_trace_of_batch(found)
        answers = iter(found)
        response = messages.BatchPredictBuildDurationsResponse()
        for item in items:
            answer = next(answers) if isinstance(item, Question) else item
            result = response.results.add()
            if isinstance(answer, Prediction):
                fill(result.response, answer)
            else:
                result.error.CopyFrom(errors.to_status(answer))
        return response

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
        if origin.missing_features:
            attributes[names.FEATURES_MISSING] = _missing(origin.missing_features)
        self._telemetry.annotate(attributes, fell_back=origin.fallback is not Fallback.NONE)

    def _tell_trace_of_batch(self, answers: Sequence[object]) -> None:
        """The same of a batch: how many answers came from where."""
        origins = [answer.origin for answer in answers if isinstance(answer, Prediction)]
        methods = Counter(origin.method.value for origin in origins)
        methods["none"] = len(answers) - len(origins)
        models = Counter(f"{origin.model.name}@{origin.model.version}" for origin in origins if origin.model.name)
        attributes = {
            names.ANSWERED_TOGETHER: str(len(answers)),
            names.METHODS: _counts(methods),
            names.MODELS: _counts(models),
            names.VARIANT: _counts(Counter(origin.variant.value for origin in origins)),
            names.FALLBACK_REASON: _counts(Counter(origin.fallback.value for origin in origins)),
        }
        missing = tuple(dict.fromkeys(chain.from_iterable({origin.missing_features for origin in origins})))
        if missing:
            attributes[names.FEATURES_MISSING] = _missing(missing)
        fell_back = any(origin.fallback is not Fallback.NONE for origin in origins)
        self._telemetry.annotate(attributes, fell_back=fell_back)


def _batch_begins(asked: Sequence[Asked]) -> None:
    """Who waited for a batch waits no more; a trace tells of how many its answer was one."""
    now, together = time.perf_counter(), str(len(asked))
    for one in asked:
        if one.waiting is not None:
            one.waiting.ended = now
        if one.call is not None:
            one.call.attributes[names.ANSWERED_TOGETHER] = together


def _counts(found: Counter[str]) -> str:
    """The most frequent, for a person to read."""
    return ", ".join(f"{name}: {count}" for name, count in found.most_common(_MOST_TOLD) if count)


def _missing(features: Sequence[str]) -> str:
    return f"{len(features)}: {', '.join(features[:_MOST_TOLD])}"


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
    return Service(SERVICE_NAME, lambda server: stubs.add_PredictionServiceServicer_to_server(servicer, server))
