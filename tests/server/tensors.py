"""Tensors for the Open Inference Protocol, what they should give, and who asks."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import onnxruntime

import ending
from conductor.inference.v2 import inference_service_pb2 as messages
from conductor.inference.v2 import inference_service_pb2_grpc as stubs
from rpc.harness import Authority, Keys
from server.harness import COLUMNS, PREDICTOR, graph

OUTPUTS = ("lower", "median", "upper")
WIDTH = len(COLUMNS)
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
# Another release of tritonclient than the one installed here, by its Python.
PYTHON = os.environ.get("CONDUCTOR_TEST_TRITONCLIENT_PYTHON", sys.executable)
CHILD = Path(__file__).with_name("stock_client.py")


MODEL: Any = SimpleNamespace(
    plan=SimpleNamespace(names=tuple(f"c{at}" for at in range(WIDTH)), required=np.array([], np.intp)),
    input_name="inputs",
    output_names=OUTPUTS,
)


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


@asynccontextmanager
async def stock_client(target, authority="", token=""):
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-P", str(CHILD), target, str(authority), token),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
        start_new_session=True,
    )

    async def ask(method, *arguments, **options):
        process.stdin.write(json.dumps([method, arguments, options]).encode() + b"\n")
        line = await process.stdout.readline()
        assert line, f"the client ended at {method}"
        return json.loads(line)

    try:
        yield ask
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        await ending.kill(process)


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
