"""Each thing that can be wrong with tensors; how they are decoded and encoded."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from onnx import TensorProto, helper

from conductor.inference.v2 import inference_service_pb2 as messages
from conductor.inference.v2 import inference_service_pb2_grpc as stubs
from conductor_model_store import ModelStore
from conductor_rpc import exceptions, rules
from conductor_rpc.exceptions import ConductorError
from conductor_rpc.telemetry import OFF
from conductor_server.inference.ports import Serving
from conductor_server.inference.tensors import MAX_ROWS, decode, encode, requested_outputs
from conductor_server.prediction.answers import Fallback, ModelLabel
from conductor_server.servicers.inference import InferenceServicer
from rpc.harness import failure
from server.harness import PREDICTOR, manifest, model_of, publish, serving, with_golden
from server.tensors import (
    INVALID,
    MODEL,
    OUTPUTS,
    WIDTH,
    by_onnx_runtime,
    infer_request,
    rows,
)


def _changed(change):
    request = infer_request(rows(2))
    change(request)
    return request


def _replace_input(**fields):
    def change(request):
        tensor = request.inputs[0]
        for name, value in fields.items():
            tensor.ClearField(name)
            tensor.MergeFrom(type(tensor)(**{name: value}))

    return change


def _raw(content):
    def change(request):
        request.raw_input_contents[0] = content

    return change


def _infinite(request):
    values = rows(2)
    values[1, 2] = -math.inf
    request.raw_input_contents[0] = values.tobytes()


def _typed(contents):
    def change(request):
        request.ClearField("raw_input_contents")
        request.inputs[0].contents.MergeFrom(messages.InferTensorContents(**contents))

    return change


def _too_many_rows(request):
    request.inputs[0].shape[0] = MAX_ROWS + 1


MISTAKES = {
    "no-model-name": (lambda r: r.ClearField("model_name"), "model_name"),
    "long-id": (lambda r: r.MergeFrom(type(r)(id="x" * 257)), "id"),
    "no-input": (lambda r: r.ClearField("inputs"), "inputs"),
    "two-inputs": (lambda r: (r.inputs.append(r.inputs[0]), r.raw_input_contents.append(b"")), "inputs"),
    "other-name": (_replace_input(name="rows"), "inputs[0].name"),
    "other-dtype": (_replace_input(datatype="FP64"), "inputs[0].datatype"),
    "no-dtype": (_replace_input(datatype=""), "inputs[0].datatype"),
    "no-shape": (_replace_input(shape=[]), "inputs[0].shape"),
    "flat": (_replace_input(shape=[2 * WIDTH]), "inputs[0].shape"),
    "too-wide": (_replace_input(shape=[2, WIDTH + 1]), "inputs[0].shape"),
    "no-rows": (_replace_input(shape=[0, WIDTH]), "inputs[0].shape"),
    "negative-rows": (_replace_input(shape=[-1, WIDTH]), "inputs[0].shape"),
    "huge": (_replace_input(shape=[2**62, WIDTH]), "inputs[0]"),
    "too-many-rows": (_too_many_rows, "inputs[0]"),
    "cut": (_raw(rows(2).tobytes()[:-1]), "raw_input_contents[0]"),
    "too-long": (_raw(rows(3).tobytes()), "raw_input_contents[0]"),
    "empty": (_raw(b""), "raw_input_contents[0]"),
    "infinite": (_infinite, "inputs[0]"),
    "raw-twice": (lambda r: r.raw_input_contents.append(b""), "raw_input_contents"),
    "raw-and-typed": (lambda r: r.inputs[0].contents.fp32_contents.append(1), "inputs[0].contents"),
    "neither": (lambda r: r.ClearField("raw_input_contents"), "inputs[0].contents"),
    "typed-too-few": (_typed({"fp32_contents": [1.0]}), "inputs[0].contents.fp32_contents"),
    "typed-otherwise": (_typed({"fp64_contents": [1.0] * 2 * WIDTH}), "inputs[0].contents.fp64_contents"),
    "typed-infinite": (_typed({"fp32_contents": [math.inf] * 2 * WIDTH}), "inputs[0]"),
    "shared-memory": (
        lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(messages.InferParameter(string_param="x")),
        "inputs[0].parameters",
    ),
    "classification": (
        lambda r: (
            r.outputs.add(name="median").parameters["classification"].MergeFrom(messages.InferParameter(int64_param=1))
        ),
        "outputs[0].parameters",
    ),
    "unknown-output": (lambda r: r.outputs.add(name="mean"), "outputs[0].name"),
    "output-twice": (lambda r: (r.outputs.add(name="median"), r.outputs.add(name="median")), "outputs[1].name"),
    "tenant-is-a-number": (
        lambda r: r.parameters["tenant_id"].MergeFrom(messages.InferParameter(int64_param=1)),
        "parameters.tenant_id",
    ),
    "long-tenant": (
        lambda r: r.parameters["tenant_id"].MergeFrom(messages.InferParameter(string_param="x" * 129)),
        "parameters.tenant_id",
    ),
}


async def test_mistakes(redis_url, store):
    publish(store)
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        for name, (change, field) in MISTAKES.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(_changed(change), timeout=60)
            found = failure(caught.value)
            assert found.code is INVALID, (name, found)
            assert found.reason == ("BATCH_TOO_LARGE" if name in ("huge", "too-many-rows") else "INVALID_FIELD"), name
            assert field in found.fields, (name, found)
        answer = await stub.ModelInfer(infer_request(rows(2)), timeout=60)
        assert len(answer.raw_output_contents) == 3, "and it goes on answering"


async def test_as_many_rows_as_allowed(redis_url, store):
    publish(store)
    inputs = rows(MAX_ROWS)
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        answer = await stubs.GRPCInferenceServiceStub(channel).ModelInfer(infer_request(inputs), timeout=60)
    for content, expected in zip(answer.raw_output_contents, by_onnx_runtime(inputs), strict=True):
        assert np.frombuffer(content, "<f4").tolist() == expected.tolist()


async def test_a_model_that_fails_is_a_plain_error(redis_url, store, caplog):
    """It looks its answer up in a table, and where the first column is 7 that ends before it."""
    constants = {
        "first": np.array(0, np.int64),
        "seven": np.array(7, np.float32),
        "far": np.array(100, np.int64),
        "table": np.array([60.0], np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["inputs", "first"], ["column"], axis=1),
        helper.make_node("Equal", ["column", "seven"], ["found"]),
        helper.make_node("Cast", ["found"], ["step"], to=TensorProto.INT64),
        helper.make_node("Mul", ["step", "far"], ["index"]),
        *(helper.make_node("Gather", ["table", "index"], [name]) for name in OUTPUTS),
    ]
    content = model_of(nodes, constants)
    ModelStore.open(store).publish(with_golden(manifest(content), content), content)
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        fine, beyond = np.full((2, WIDTH), 1, np.float32), np.full((2, WIDTH), 7, np.float32)
        await stub.ModelInfer(infer_request(fine), timeout=60)
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(infer_request(beyond), timeout=60)
            found = failure(caught.value)
            assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "MODEL_FAILED")
            assert "ather" not in found.message, "a graph's own words stay here"
        assert sum("failed on a caller's tensors" in record.message for record in caplog.records) == 1
        await stub.ModelInfer(infer_request(fine), timeout=60)


_FLOATS = st.floats(width=32, allow_infinity=False)


async def test_nan_is_never_answered():
    async def run(inputs, until):
        return np.repeat(inputs[:, :1], 3, axis=1).astype(np.float64)

    needs = SimpleNamespace(names=MODEL.plan.names, required=np.array([1], np.intp))
    label = ModelLabel("models/build-duration/global", "1", "d")
    model: Any = SimpleNamespace(**{**vars(MODEL), "plan": needs}, run=run, label=label)
    models = SimpleNamespace(serving=lambda predictor, tenant_id: Serving((model,), Fallback.NONE))
    servicer = InferenceServicer(models, OFF, lambda: True)
    good = np.ones((2, WIDTH), np.float32)
    await servicer.ModelInfer(infer_request(good), None)
    lacking, unanswered = good.copy(), good.copy()
    lacking[1, 1] = unanswered[1, 0] = math.nan
    with pytest.raises(exceptions.InvalidRequest, match="row 1, column 'c1'"):
        await servicer.ModelInfer(infer_request(lacking), None)
    with pytest.raises(exceptions.ModelNotRun):
        await servicer.ModelInfer(infer_request(unanswered), None)


@given(numpy_st.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(WIDTH)), elements=_FLOATS))
def test_raw_and_typed_say_the_same(inputs):
    for raw in (True, False):
        request = messages.ModelInferRequest.FromString(infer_request(inputs, raw=raw).SerializeToString())
        if not raw:
            request.inputs[0].contents.MergeFromString(b"\x78\x01")  # a field of a later release of the protocol
        rules.validate(request)
        decoded = decode(request, MODEL)
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, inputs)
        response = messages.ModelInferResponse()
        encode(response, OUTPUTS, decoded[:, :3].astype(np.float64), [2, 0], raw=raw)
        assert [output.name for output in response.outputs] == ["upper", "lower"]
        for at, column in enumerate((2, 0)):
            contents = response.outputs[at].contents.fp32_contents
            told = np.frombuffer(response.raw_output_contents[at], "<f4") if raw else np.array(contents, np.float32)
            np.testing.assert_array_equal(told, inputs[:, column])
            assert list(response.outputs[at].shape) == [len(inputs)]
            assert bool(contents) is not raw


_TENSORS = st.builds(
    messages.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["inputs", "x", ""]),
    datatype=st.sampled_from(["FP32", "FP64", ""]),
    shape=st.lists(st.sampled_from([-(2**63), -1, 0, 1, 2, WIDTH, 2**31, 2**63 - 1]), max_size=3),
    contents=st.none()
    | st.builds(
        messages.InferTensorContents,
        fp32_contents=st.lists(st.floats(width=32), max_size=2 * WIDTH),
        int_contents=st.lists(st.integers(-5, 5), max_size=2),
    ),
)


@given(
    st.builds(
        messages.ModelInferRequest,
        model_name=st.just(PREDICTOR),
        inputs=st.lists(_TENSORS, max_size=2),
        outputs=st.lists(
            st.builds(
                messages.ModelInferRequest.InferRequestedOutputTensor, name=st.sampled_from([*OUTPUTS, "mean", ""])
            ),
            max_size=4,
        ),
        raw_input_contents=st.lists(st.binary(max_size=64), max_size=2),
    )
)
def test_any_request_is_decoded_or_refused(request):
    try:
        rules.validate(request)
        requested_outputs(request, MODEL)
        decoded = decode(request, MODEL)
    except ConductorError:
        return
    assert list(decoded.shape) == list(request.inputs[0].shape)
    assert not np.isinf(decoded).any()
