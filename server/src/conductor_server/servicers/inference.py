"""``inference.GRPCInferenceService``: the Open Inference Protocol, version 2."""

# ruff: noqa: N802 - the protocol's method names

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import grpc.aio
import numpy as np

from conductor.inference.v2 import inference_service_pb2 as messages
from conductor.inference.v2 import inference_service_pb2_grpc as stubs
from conductor_rpc import names
from conductor_rpc.call import current_call, current_deadline
from conductor_rpc.exceptions import ModelNotFound, ModelNotRun
from conductor_rpc.server import Service
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.work import Work
from conductor_server.inference.ports import Serving, TensorModel, TensorModels
from conductor_server.inference.tensors import DATATYPE, MAX_ROWS, decode, encode, requested_outputs
from conductor_server.prediction.answers import Fallback
from conductor_server.prediction.ports import ModelFailed
from conductor_server.prediction.run_notes import notes_of_run

SERVICE_NAME = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
_ANY = -1
_LOG = logging.getLogger(__name__)
_Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(stubs.GRPCInferenceServiceServicer):
    """Translates and delegates. Credentials, tenant and rules that hold for any model were checked on the way in."""

    def __init__(self, models: TensorModels, telemetry: Telemetry, is_ready: Callable[[], bool]) -> None:
        self._models, self._telemetry, self._is_ready = models, telemetry, is_ready
        self._complained_of: set[str] = set()

    async def ServerLive(self, request: messages.ServerLiveRequest, context: _Context) -> messages.ServerLiveResponse:
        """Tell that the process answers."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: messages.ServerReadyRequest, context: _Context
    ) -> messages.ServerReadyResponse:
        """Tell whether the process takes requests."""
        return messages.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(self, request: messages.ModelReadyRequest, context: _Context) -> messages.ModelReadyResponse:
        """Tell whether a model answers the tenant's requests."""
        try:
            _find(self._serving(request.name), request.name, request.version)
        except ModelNotFound:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=self._is_ready())

    async def ServerMetadata(
        self, request: messages.ServerMetadataRequest, context: _Context
    ) -> messages.ServerMetadataResponse:
        """Tell what server this is."""
        return messages.ServerMetadataResponse(name="conductor", version=version("conductor-server"))

    async def ModelMetadata(
        self, request: messages.ModelMetadataRequest, context: _Context
    ) -> messages.ModelMetadataResponse:
        """Tell a model's tensors and versions."""
        serving = self._serving(request.name)
        model = _find(serving, request.name, request.version)
        response = messages.ModelMetadataResponse(name=request.name, platform=PLATFORM)
        response.versions.extend(dict.fromkeys(found.label.version for found in serving.models))
        response.inputs.add(name=model.input_name, datatype=DATATYPE, shape=[_ANY, len(model.plan.names)])
        for name in model.output_names:
            response.outputs.add(name=name, datatype=DATATYPE, shape=[_ANY])
        return response

    async def ModelConfig(
        self, request: messages.ModelConfigRequest, context: _Context
    ) -> messages.ModelConfigResponse:
        """Tell a model's configuration."""
        model = _find(self._serving(request.name), request.name, request.version)
        response = messages.ModelConfigResponse()
        config, kind = response.config, messages.DataType.TYPE_FP32
        config.name, config.platform, config.backend = request.name, PLATFORM, BACKEND
        config.max_batch_size = MAX_ROWS
        config.input.add(name=model.input_name, data_type=kind, dims=[len(model.plan.names)])
        for name in model.output_names:
            # A configuration can't say "no dimension but the rows": it says one, which the graph leaves out.
            config.output.add(name=name, data_type=kind, dims=[1], reshape={})
        return response

    async def ModelInfer(self, request: messages.ModelInferRequest, context: _Context) -> messages.ModelInferResponse:
        """Run a model on the request's rows."""
        serving = self._serving(request.model_name)
        model = _find(serving, request.model_name, request.model_version)
        positions = requested_outputs(request, model)
        inputs = decode(request, model)
        current_deadline().require(0)
        label = model.label
        fell_back = serving.fallback is not Fallback.NONE and not request.model_version
        told = {
            names.MODEL_NAME: label.name,
            names.MODEL_VERSION: label.version,
            names.FALLBACK_REASON: serving.fallback.value if fell_back else Fallback.NONE.value,
            names.ANSWERED_TOGETHER: str(len(inputs)),
        }
        self._telemetry.annotate(told, fell_back=fell_back)
        try:
            with self._telemetry.stage(names.MODEL_RUN, notes_of_run(label, len(inputs))):
                outputs = await model.run(inputs, current_deadline())
            if not np.isfinite(outputs).all():
                raise ModelFailed("it answered something that is no number")
        except ModelFailed as error:
            self._complain(request.model_name, model, error)
            raise ModelNotRun from error
        response = messages.ModelInferResponse(
            model_name=request.model_name, model_version=label.version, id=request.id
        )
        response.parameters["model_name"].string_param = label.name
        response.parameters["model_version"].string_param = label.version
        response.parameters["model_digest"].string_param = label.digest
        if fell_back:
            response.parameters["fallback_reason"].string_param = serving.fallback.value
        encode(response, model.output_names, outputs, positions, raw=bool(request.raw_input_contents))
        return response

    def _serving(self, predictor: str) -> Serving:
        call = current_call()
        return self._models.serving(predictor, call.tenant_id if call is not None else "")

    def _complain(self, predictor: str, model: TensorModel, error: ModelFailed) -> None:
        """Count each failure, log a version's first one."""
        self._telemetry.count(names.MODEL_FAILURES, {names.PREDICTOR: predictor})
        if model.label.version not in self._complained_of:
            self._complained_of.add(model.label.version)
            _LOG.error("%s %s failed on a caller's tensors: %s", model.label.name, model.label.version, error)


def _find(serving: Serving, name: str, version: str) -> TensorModel:
    """The model that serves the call's tenant now, or the one loaded for it of exactly that version.

    Raises:
        ModelNotFound: there is none.
    """
    for model in serving.models:
        if version in ("", model.label.version):
            return model
    raise ModelNotFound(name, version)


def inference_service(models: TensorModels, telemetry: Telemetry, is_ready: Callable[[], bool]) -> Service:
    """The service, ready to be served."""
    servicer = InferenceServicer(models, telemetry, is_ready)
    return Service(
        SERVICE_NAME,
        lambda server: stubs.add_GRPCInferenceServiceServicer_to_server(servicer, server),
        {"ModelInfer": Work(frequent=True)},
    )
