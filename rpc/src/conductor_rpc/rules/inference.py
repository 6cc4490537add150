"""Rules of inference requests that hold for any model. What depends on the model is checked where it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.message import Message

from conductor.inference.v2.inference_service_pb2 import (
    ModelConfigRequest,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
)
from conductor_rpc.exceptions import Violation
from conductor_rpc.rules.engine import TENANT, Many, Nested, Table, Text, Together
from conductor_rpc.tenancy import TENANT_PARAMETER

_NAME = Text(256, required=True)
_VERSION = Text(128)
_DATATYPE = Text(16, required=True)
_MAX_TENSORS = 16

_MODEL: Table = {"name": _NAME, "version": _VERSION}
TABLES: Mapping[type[Message], Table] = {
    ModelReadyRequest: _MODEL,
    ModelMetadataRequest: _MODEL,
    ModelConfigRequest: _MODEL,
    ModelInferRequest: {
        "model_name": _NAME,
        "model_version": _VERSION,
        "id": Text(256),
        "inputs": Many(_MAX_TENSORS, Nested(), required=True),
        "outputs": Many(_MAX_TENSORS, Nested()),
    },
    ModelInferRequest.InferInputTensor: {"name": _NAME, "datatype": _DATATYPE},
    ModelInferRequest.InferRequestedOutputTensor: {"name": _NAME},
}


def _infer(request: ModelInferRequest) -> Iterator[Violation]:
    if TENANT_PARAMETER in request.parameters:
        yield from TENANT.check(request.parameters[TENANT_PARAMETER].string_param, f"parameters.{TENANT_PARAMETER}")
    raw_count, input_count = len(request.raw_input_contents), len(request.inputs)
    if raw_count and raw_count != input_count:
        text = f"must hold the contents of every input or of none: {raw_count} for {input_count} inputs"
        yield Violation("raw_input_contents", text)
    for at, tensor in enumerate(request.inputs):
        if tensor.parameters:
            yield Violation(f"inputs[{at}].parameters", "are not supported: contents come with the request")
        if raw_count and tensor.HasField("contents"):
            yield Violation(f"inputs[{at}].contents", "must be absent where raw_input_contents are given")
        if not raw_count and not tensor.HasField("contents"):
            yield Violation(f"inputs[{at}].contents", "or raw_input_contents must be given")
    names = [output.name for output in request.outputs]
    for at, output in enumerate(request.outputs):
        if output.parameters:
            yield Violation(f"outputs[{at}].parameters", "are not supported: outputs are given as they are")
        if output.name in names[:at]:
            yield Violation(f"outputs[{at}].name", "must not be asked for twice")


TOGETHER: Mapping[type[Message], Together] = {ModelInferRequest: _infer}
