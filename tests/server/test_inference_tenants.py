"""Whose model runs a tenant's tensors, and what is told of others'."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from conductor.inference.v2 import inference_service_pb2 as messages
from conductor.inference.v2 import inference_service_pb2_grpc as stubs
from conductor_rpc.telemetry import OFF
from conductor_server.inference.ports import Serving
from conductor_server.prediction.answers import Fallback, ModelLabel
from conductor_server.servicers.inference import InferenceServicer
from rpc.harness import bearer, failure
from server.harness import PREDICTOR, expected_median, publish, serving
from server.tensors import (
    MODEL,
    NOT_FOUND,
    WIDTH,
    by_onnx_runtime,
    infer_request,
    rows,
)


async def test_a_tenant_has_its_own_model_and_the_global_one(secure, store, redis_url):
    versions = {tenant: publish(store, bias, tenant).version for tenant, bias in (("acme", 20.0), ("other", 99.0))}
    inputs = rows(3)
    medians = {
        tenant: by_onnx_runtime(inputs, bias)[1] for tenant, bias in (("acme", 20.0), ("other", 99.0), ("", 10.0))
    }
    async with secure.stub() as stub:
        tokens = {tenant: bearer(secure.keys.token(tenant)) for tenant in ("acme", "other", "third")}
        for tenant, version in versions.items():
            await _until_ready(stub, tokens[tenant], version)
        metadata = await stub.ModelMetadata(messages.ModelMetadataRequest(name=PREDICTOR), metadata=tokens["acme"])
        own, shared = metadata.versions
        assert own == versions["acme"]

        async def median(tenant, **fields):
            answer = await stub.ModelInfer(infer_request(inputs, **fields), metadata=tokens[tenant])
            return np.frombuffer(answer.raw_output_contents[1], "<f4").tolist()

        assert await median("acme") == medians["acme"].tolist()
        assert await median("other") == medians["other"].tolist()
        assert await median("third") == medians[""].tolist()
        assert await median("acme", model_version=shared) == medians[""].tolist()
        named = {"tenant_id": messages.InferParameter(string_param="acme")}
        assert await median("acme", parameters=named) == medians["acme"].tolist()

        # Another tenant's model: refused by name, and not told from one that does not exist.
        for named in ("other", "", "nobody"):
            parameters = {"tenant_id": messages.InferParameter(string_param=named)}
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await median("acme", parameters=parameters)
            found = failure(caught.value)
            assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISMATCH")
        texts = set()
        for version in (versions["other"], "f" * len(versions["other"])):
            for call in (
                median("acme", model_version=version),
                stub.ModelMetadata(
                    messages.ModelMetadataRequest(name=PREDICTOR, version=version), metadata=tokens["acme"]
                ),
                stub.ModelConfig(messages.ModelConfigRequest(name=PREDICTOR, version=version), metadata=tokens["acme"]),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                found = failure(caught.value)
                assert (found.code, found.reason) == (NOT_FOUND, "MODEL_NOT_FOUND")
                texts.add(found.message.replace(version, "…"))
            ready = await stub.ModelReady(
                messages.ModelReadyRequest(name=PREDICTOR, version=version), metadata=tokens["acme"]
            )
            assert not ready.ready
        assert len(texts) == 1


async def test_an_insecure_server_takes_the_parameters_word(redis_url, store):
    publish(store, 10.0)
    publish(store, 20.0, "acme")
    inputs = np.zeros((1, WIDTH), np.float32)
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        named = {"tenant_id": messages.InferParameter(string_param="acme")}
        for fields, bias in (({}, 10.0), ({"parameters": named}, 20.0)):
            answer = await stub.ModelInfer(infer_request(inputs, raw=False, **fields))
            assert answer.outputs[1].contents.fp32_contents[0] == expected_median(bias, recent=0, since=0, running=0)


async def _until_ready(stub, metadata, version):
    async with asyncio.timeout(60):
        while True:
            asked = messages.ModelReadyRequest(name=PREDICTOR, version=version)
            if (await stub.ModelReady(asked, metadata=metadata)).ready:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", ["", "1"])
async def test_who_answers_for_a_model_that_is_being_loaded_is_told(version):
    async def run(inputs, until):
        return np.repeat(inputs[:, :1], 3, axis=1).astype(np.float64)

    model: Any = SimpleNamespace(**vars(MODEL), run=run, label=ModelLabel("models/build-duration/global", "1", "d"))
    models = SimpleNamespace(serving=lambda predictor, tenant_id: Serving((model,), Fallback.MODEL_LOADING))
    servicer = InferenceServicer(models, OFF, lambda: True)
    answer = await servicer.ModelInfer(infer_request(rows(1), model_version=version), None)
    told = {name: value.string_param for name, value in answer.parameters.items()}
    label = {"model_name": "models/build-duration/global", "model_version": "1", "model_digest": "d"}
    # Who asks for a version by name gets it: nothing stands in for it.
    assert told == label | ({} if version else {"fallback_reason": "model_loading"})
