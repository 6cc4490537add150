"""Requests of the Open Inference Protocol for a model, as a stock client sends them."""

from __future__ import annotations

import numpy as np

from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor_model_store import LoadedModel

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def tensor_request(model: LoadedModel, rows: int) -> bytes:
    """A serialized request for so many rows, their bytes as they are; made of the model's golden requests."""
    manifest = model.manifest
    golden = np.array([request.inputs for request in manifest.golden_requests], np.float32)
    inputs = np.resize(golden, (rows, golden.shape[1]))
    request = ModelInferRequest(model_name=manifest.predictor, raw_input_contents=[inputs.tobytes()])
    request.inputs.add(name=manifest.input_name, datatype="FP32", shape=inputs.shape)
    for name in (manifest.outputs.lower, manifest.outputs.median, manifest.outputs.upper):
        request.outputs.add(name=name)
    return request.SerializeToString()
