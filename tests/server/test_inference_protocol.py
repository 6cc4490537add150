"""The Open Inference Protocol: a stock tritonclient against a real server, and other people's view of the contract."""

from __future__ import annotations

import asyncio
import base64
import os
import re
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import ending
from conductor.inference.v2 import inference_service_pb2 as messages
from conductor_server.inference.tensors import MAX_ROWS
from server.harness import PREDICTOR, serving
from server.tensors import (
    INVALID,
    NOT_FOUND,
    OUTPUTS,
    PYTHON,
    WIDTH,
    by_onnx_runtime,
    rows,
)

SERVICE = "inference.GRPCInferenceService"
PAGE = Path(__file__).parents[2] / "docs" / "other-clients.md"
OURS_IN_PART = {"ModelConfig", "ModelInput", "ModelOutput"}


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
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        await ending.kill(process)
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
