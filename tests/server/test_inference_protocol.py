"""The Open Inference Protocol: a stock tritonclient against a real server, and each thing that can be wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
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
from rpc.harness import AUDIENCE, ISSUER, Authority, Keys, bearer, failure
from server.harness import COLUMNS, PREDICTOR, expected_median, graph, manifest, model_of, publish, serving, with_golden

SERVICE = "inference.GRPCInferenceService"
OUTPUTS = ("lower", "median", "upper")
WIDTH = len(COLUMNS)
# Another release of tritonclient than the one installed here, by its Python.
PYTHON = os.environ.get("CONDUCTOR_TEST_TRITONCLIENT_PYTHON", sys.executable)
CHILD = Path(__file__).with_name("stock_client.py")
PAGE = Path(__file__).parents[2] / "docs" / "other-clients.md"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
OURS_IN_PART = {"ModelConfig", "ModelInput", "ModelOutput"}


@dataclass
class Secure:
    """What a caller of the secure server has."""

    target: str
    authority: Authority
    keys: Keys

    @asynccontextmanager
    async def stub(self):
        async with grpc.aio.secure_channel(self.target, self.authority.credentials()) as channel:
            yield stubs.GRPCInferenceServiceStub(channel)

    @asynccontextmanager
    async def stock(self, tenant_id="acme"):
        token = self.keys.token(tenant_id)
        async with stock_client(self.target, self.authority.file, token) as ask:
            yield ask


@pytest.fixture(scope="module")
def keys():
    return Keys()


@pytest.fixture
async def secure(redis_url, store, tmp_path, keys):
    """A server with TLS and tokens, and the store it serves from."""
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    (tmp_path / "jwks.json").write_text(keys.jwks())
    settings = {
        "insecure": False,
        "allow_unsigned_models": True,
        "jwks": str(tmp_path / "jwks.json"),
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "tls_certificate_file": pair.certificate,
        "tls_key_file": pair.key,
    }
    publish(store)
    async with serving(redis_url, store, **settings) as server:
        yield Secure(server.target, authority, keys)


@asynccontextmanager
async def stock_client(target, authority="", token=""):
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-P", str(CHILD), target, str(authority), token),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )

    async def ask(method, *arguments, **options):
        process.stdin.write(json.dumps([method, arguments, options]).encode() + b"\n")
        line = await process.stdout.readline()
        assert line, f"the client ended at {method}"
        return json.loads(line)

    try:
        yield ask
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def rows(count, seed=0):
    """Input rows, a few values missing."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(0, 1000, (count, WIDTH)).astype(np.float32)
    values[generator.random(values.shape) < 0.1] = math.nan
    return values


def by_onnx_runtime(inputs, bias=10.0):
    """What ONNX Runtime itself says of the published graph."""
    return onnxruntime.InferenceSession(graph(bias)).run(OUTPUTS, {"inputs": inputs})


def infer_request(inputs, *, raw=True, name="inputs", **fields):
    request = messages.ModelInferRequest(model_name=PREDICTOR, **fields)
    tensor = request.inputs.add(name=name, datatype="FP32", shape=inputs.shape)
    if raw:
        request.raw_input_contents.append(inputs.astype("<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(inputs.ravel().tolist())
    return request


async def test_a_stock_client(secure):
    from importlib.metadata import version

    async with secure.stock() as ask:
        assert await ask("is_server_live") is True, "without credentials"
        assert await ask("is_server_ready") is True, "without credentials"
        assert await ask("is_model_ready", PREDICTOR, with_token=True) is True
        assert await ask("is_model_ready", PREDICTOR, "no-such-version", with_token=True) is False
        assert await ask("is_model_ready", "no-such-model", with_token=True) is False
        server = await ask("get_server_metadata", as_json=True, with_token=True)
        assert server == {"name": "conductor", "version": version("conductor-server")}
        metadata = await ask("get_model_metadata", PREDICTOR, as_json=True, with_token=True)
        [loaded] = metadata["versions"]
        assert metadata == {
            "name": PREDICTOR,
            "versions": [loaded],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "inputs", "datatype": "FP32", "shape": ["-1", str(WIDTH)]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": ["-1"]} for name in OUTPUTS],
        }
        config = (await ask("get_model_config", PREDICTOR, as_json=True, with_token=True))["config"]
        assert (config["name"], config["platform"], config["backend"]) == (PREDICTOR, "onnxruntime_onnx", "onnxruntime")
        assert config["max_batch_size"] == MAX_ROWS
        assert config["input"] == [{"name": "inputs", "data_type": "TYPE_FP32", "dims": [str(WIDTH)]}]
        assert [(o["name"], o["data_type"], o["dims"]) for o in config["output"]] == [
            (name, "TYPE_FP32", ["1"]) for name in OUTPUTS
        ]
        for count in (1, 256):
            inputs = rows(count, seed=count)
            answer = await ask("infer", PREDICTOR, "inputs", inputs.tolist(), request_id="mine")
            for name, expected in zip(OUTPUTS, by_onnx_runtime(inputs), strict=True):
                assert answer["outputs"][name] == expected.tolist()
            assert answer["shapes"] == {name: [count] for name in OUTPUTS}
            assert (answer["id"], answer["version"]) == ("mine", loaded)
        assert answer["parameters"]["model_version"] == loaded
        assert set(answer["parameters"]) == {"model_name", "model_version", "model_digest"}
        answer = await ask("infer", PREDICTOR, "inputs", inputs.tolist(), ["upper", "median"], model_version=loaded)
        assert list(answer["outputs"]) == ["upper", "median"]
        assert answer["outputs"]["upper"] == by_onnx_runtime(inputs)[2].tolist()
        typed = {"name": "inputs", "datatype": "FP32", "shape": [1, WIDTH], "contents": {"fp32_contents": [1, 2, 3, 4]}}
        answer = await ask("send", {"model_name": PREDICTOR, "inputs": [typed]})
        expected = by_onnx_runtime(np.array([[1, 2, 3, 4]], np.float32))
        told = [np.array(output["contents"]["fp32_contents"], np.float32) for output in answer["outputs"]]
        np.testing.assert_array_equal(told, expected)
        assert "raw_output_contents" not in answer, "typed, as it was asked"


async def test_a_stock_clients_mistakes(secure):
    good = rows(2).tolist()
    async with secure.stock() as ask:
        for asked, code, text in (
            (ask("infer", "no-such-model", "inputs", good), NOT_FOUND, "not loaded"),
            (ask("infer", PREDICTOR, "inputs", good, model_version="7"), NOT_FOUND, "'7'"),
            (ask("infer", PREDICTOR, "input", good), INVALID, "'inputs'"),
            (ask("infer", PREDICTOR, "inputs", rows(2)[:, :-1].tolist()), INVALID, f"[rows, {WIDTH}]"),
            (ask("infer", PREDICTOR, "inputs", good, ["mean"]), INVALID, "lower, median, upper"),
            (ask("get_model_metadata", "no-such-model", with_token=True), NOT_FOUND, "not loaded"),
            (ask("get_model_config", "no-such-model", with_token=True), NOT_FOUND, "not loaded"),
            (ask("get_server_metadata"), grpc.StatusCode.UNAUTHENTICATED, "token"),
            (ask("get_model_metadata", PREDICTOR), grpc.StatusCode.UNAUTHENTICATED, "token"),
            (ask("is_model_ready", PREDICTOR), grpc.StatusCode.UNAUTHENTICATED, "token"),
            (ask("get_model_repository_index", with_token=True), grpc.StatusCode.UNIMPLEMENTED, ""),
        ):
            answer = await asked
            assert answer["error"] == str(code), answer
            assert text in answer["message"]


async def test_the_example_of_the_docs(secure, tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example.count("localhost:50051") == example.count("ca.pem") == 1
    example = example.replace("localhost:50051", secure.target).replace("ca.pem", str(secure.authority.file))
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-P", "-c", example),
        env={**os.environ, "CONDUCTOR_TOKEN": secure.keys.token()},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    expected = by_onnx_runtime(np.full((2, WIDTH), 60, np.float32))[1]
    assert output.decode().startswith(str(expected))


async def test_names_and_numbers_are_the_protocols(secure):
    async with secure.stock() as ask:
        files = [FileDescriptorProto.FromString(base64.b64decode(file)) for file in await ask("descriptors")]
    ours = FileDescriptorProto()
    messages.DESCRIPTOR.CopyToProto(ours)
    assert {file.package for file in (*files, ours)} == {"inference"}
    theirs = {m.name: _fields(m) for file in files for m in file.message_type}
    for message in ours.message_type:
        fields, published = _fields(message), theirs[message.name]
        assert fields.items() <= published.items(), message.name
        if message.name not in OURS_IN_PART:
            assert fields == published, message.name
    enums = {e.name: {v.name: v.number for v in e.value} for file in files for e in file.enum_type}
    for enum in ours.enum_type:
        assert {v.name: v.number for v in enum.value} == enums[enum.name]
    published_methods = {_method(m) for file in files for service in file.service for m in service.method}
    [service] = ours.service
    assert {_method(method) for method in service.method} <= published_methods
    assert len(service.method) == 7


def _fields(message, prefix=""):
    """Number, kind, type and oneof of each field, by name, with those of nested messages."""
    found = {
        prefix + field.name: (
            field.number,
            field.type,
            field.label,
            field.type_name,
            message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None,
            field.proto3_optional,
        )
        for field in message.field
    }
    for nested in message.nested_type:
        found |= _fields(nested, f"{prefix}{nested.name}.")
    return found


def _method(method):
    return method.name, method.input_type, method.output_type, method.client_streaming, method.server_streaming


async def test_health_and_reflection_know_the_service(redis_url, store):
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = [a async for a in reflect(iter([asked]))]
        assert SERVICE in {service.name for service in answer.list_services_response.service}


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
                await stub.ModelInfer(_changed(change), timeout=10)
            found = failure(caught.value)
            assert found.code is INVALID, (name, found)
            assert found.reason == ("BATCH_TOO_LARGE" if name in ("huge", "too-many-rows") else "INVALID_FIELD"), name
            assert field in found.fields, (name, found)
        answer = await stub.ModelInfer(infer_request(rows(2)), timeout=10)
        assert len(answer.raw_output_contents) == 3, "and it goes on answering"


async def test_as_many_rows_as_allowed(redis_url, store):
    publish(store)
    inputs = rows(MAX_ROWS)
    async with serving(redis_url, store) as server, grpc.aio.insecure_channel(server.target) as channel:
        answer = await stubs.GRPCInferenceServiceStub(channel).ModelInfer(infer_request(inputs), timeout=30)
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
        await stub.ModelInfer(infer_request(fine), timeout=10)
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(infer_request(beyond), timeout=10)
            found = failure(caught.value)
            assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "MODEL_FAILED")
            assert "ather" not in found.message, "a graph's own words stay here"
        assert sum("failed on a caller's tensors" in record.message for record in caplog.records) == 1
        await stub.ModelInfer(infer_request(fine), timeout=10)


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
    async with asyncio.timeout(20):
        while True:
            asked = messages.ModelReadyRequest(name=PREDICTOR, version=version)
            if (await stub.ModelReady(asked, metadata=metadata)).ready:
                return
            await asyncio.sleep(0.02)


# Tensors by themselves.

MODEL: Any = SimpleNamespace(
    plan=SimpleNamespace(names=tuple(f"c{at}" for at in range(WIDTH)), required=np.array([], np.intp)),
    input_name="inputs",
    output_names=OUTPUTS,
)
_FLOATS = st.floats(width=32, allow_infinity=False)


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


async def test_nan_is_never_answered():
    async def run(inputs):
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
