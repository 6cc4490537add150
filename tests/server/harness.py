"""A tiny real model, published to a real store, served by the real application."""

from __future__ import annotations

import asyncio
import hashlib
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc.aio
import numpy as np
import onnx
import pytest
import redis
from onnx import TensorProto, helper

from conductor.model.v1.model_manifest_pb2 import GoldenRequest, InputColumn, ModelManifest
from conductor.prediction.v1 import prediction_service_pb2_grpc
from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor_features.filling import position_key
from conductor_features.views import PIPELINE_BUILDS, TENANT_LOAD, VIEWS
from conductor_features.writer import write_rows
from conductor_model_store import ModelStore, ModelVersion, watch
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_server.app import application
from conductor_server.models.sessions import open_session, run_session
from conductor_server.settings import ServerSettings

QUEUED = datetime(2026, 1, 10, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PREDICTOR = "build-duration"
HISTORY = {"lower_duration_30": 50.0, "median_duration_15": 100.0, "upper_duration_30": 200.0}

# The graph: median = bias + 1·recent + 2·lines + 0.5·since + 3·running, NaN as 0; bounds at 0.8 and 1.25 of it.
COLUMNS = [
    InputColumn(name="recent", feature={"view": "pipeline_builds_v1", "field": "median_duration_7"}, typical_value=60),
    InputColumn(name="lines", request_column="added_line_count", typical_value=10),
    InputColumn(name="since", elapsed_since={"view": "pipeline_builds_v1", "field": "last_completed_time"}),
    InputColumn(name="running", feature={"view": "tenant_load_v1", "field": "running_count"}, typical_value=0),
]
WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0], np.float32)


def graph(
    bias: float,
    columns: int = len(COLUMNS),
    weights: np.ndarray = WEIGHTS,
    *,
    extra: Sequence[Any] = (),
    constants: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> bytes:
    """A linear model as ONNX.

    ``extra``: nodes that make "extra", a number for each row, of "filled", the rows without NaN, and of ``constants``.
    It is added to the median.
    """
    held = {
        "zero": np.array(0, np.float32),
        "weights": weights.reshape(columns, 1).astype(np.float32),
        "bias": np.array(bias, np.float32),
        "low": np.array(0.8, np.float32),
        "high": np.array(1.25, np.float32),
        "flat": np.array([-1], np.int64),
        **constants,
    }
    nodes = [
        helper.make_node("IsNaN", ["inputs"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "inputs"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["product"]),
        helper.make_node("Reshape", ["product", "flat"], ["summed"]),
        *extra,
        helper.make_node("Sum", ["summed", "bias", *(["extra"] if extra else [])], ["median"]),
        helper.make_node("Mul", ["median", "low"], ["lower"]),
        helper.make_node("Mul", ["median", "high"], ["upper"]),
    ]
    return model_of(nodes, held, columns)


def model_of(nodes: Sequence[Any], constants: dict[str, np.ndarray], columns: int = len(COLUMNS)) -> bytes:
    """ONNX bytes of nodes that turn "inputs" into "lower", "median" and "upper"."""
    value = helper.make_tensor_value_info
    return onnx.ModelProto.SerializeToString(
        helper.make_model(
            helper.make_graph(
                nodes,
                "test",
                [value("inputs", TensorProto.FLOAT, ["rows", columns])],
                [value(name, TensorProto.FLOAT, None) for name in ("lower", "median", "upper")],
                [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
    )


def manifest(content: bytes, tenant_id: str = "", *, columns: Sequence[InputColumn] = COLUMNS) -> ModelManifest:
    return ModelManifest(
        predictor=PREDICTOR,
        tenant_id=tenant_id,
        algorithm="linear",
        graph={"digest": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)},
        inputs=columns,
        input_name="inputs",
        outputs={"lower": "lower", "median": "median", "upper": "upper"},
        calibration={"coverage": 0.9},
    )


def with_golden(result: ModelManifest, content: bytes) -> ModelManifest:
    rows = np.array([[60.0] * len(result.inputs), [math.nan] * len(result.inputs)], np.float32)
    outputs = run_session(open_session(content), "inputs", ("lower", "median", "upper"), rows)
    for row, output in zip(rows, outputs, strict=True):
        result.golden_requests.append(GoldenRequest(inputs=row.tolist(), outputs=output.tolist()))
    return result


def publish(
    store: Path, bias: float = 10.0, tenant_id: str = "", change: Callable[[ModelManifest], None] | None = None
) -> ModelVersion:
    content = graph(bias)
    result = with_golden(manifest(content, tenant_id), content)
    if change is not None:
        change(result)
    return ModelStore.open(store).publish(result, content)


def write_features(
    redis_url: str,
    tenant_id: str = "acme",
    *,
    recent: float = 100.0,
    age: timedelta = 60 * SECOND,
    repository: str = "shop/web",
    load: bool = True,
    **more: float,
) -> None:
    """Rows as of ``age`` before QUEUED: the last build completed at that moment, two builds run."""
    moment = QUEUED - age
    values = [math.nan] * len(PIPELINE_BUILDS.fields)
    fields = {"median_duration_7": recent, "last_completed_time": moment.timestamp(), **HISTORY, **more}
    for name, value in fields.items():
        values[PIPELINE_BUILDS.field_index[name]] = value
    with redis.Redis.from_url(redis_url) as client:
        for view in VIEWS:  # as the tailing writer leaves it: what is not there does not exist
            client.set(position_key(view), b"epoch+lists 7 1")
        write_rows(client, PIPELINE_BUILDS, [((tenant_id, repository, "ci"), moment, values)])
        if load:
            loads = [math.nan] * len(TENANT_LOAD.fields)
            loads[TENANT_LOAD.field_index["running_count"]] = 2.0
            write_rows(client, TENANT_LOAD, [((tenant_id,), moment, loads)])


def expected_median(bias: float, *, recent: float = 100.0, lines: float = 0, since: float = 60, running: float = 2):
    return bias + recent + 2 * lines + 0.5 * since + 3 * running


def request(tenant_id: str = "acme", *, lines: int | None = None, **fields: Any) -> PredictBuildDurationRequest:
    queued = fields.pop("queued_time", QUEUED)
    build = {"repository": "shop/web", "pipeline": "ci", **fields}
    message = PredictBuildDurationRequest(tenant_id=tenant_id, build=build)
    if queued is not None:
        message.build.queued_time.FromDatetime(queued)
    if lines is not None:
        message.build.change.added_line_count = lines
    return message


@dataclass
class Serving:
    """A server that serves, and a client of it."""

    target: str
    stub: Any

    async def predict(self, message: PredictBuildDurationRequest, **options: Any) -> Any:
        return await self.stub.PredictBuildDuration(message, **options)

    async def eventually(self, condition: Callable[[Any], bool], message: Any = None, seconds: float = 60) -> Any:
        """Ask until the answer is as expected."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await self.predict(message or request())
            if condition(answer):
                return answer
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.02)


def list_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers find by listing, not told by the journal, what changed: twice a second and more."""
    monkeypatch.setattr(watch, "_LISTING_SHARE", 0.0)
    monkeypatch.setitem(ModelStore.__init__.__kwdefaults__, "rescan_seconds", 0.1)


def settings(redis_url: str, store: Path, **changes: Any) -> ServerSettings:
    values = {
        "port": 0,
        "insecure": True,
        "redis_url": redis_url,
        "model_store": str(store),
        "model_poll_seconds": 0.05,
        "grace_seconds": 0,
        "default_deadline_seconds": 60,  # for the machine's sake, too
        "feature_timeout_seconds": 2.0,  # generous: these tests share two cores with others
        "concurrency_limit": "fixed",  # what others do to the machine must not pass for overload
        **changes,
    }
    return ServerSettings(**values)


# What one test's server found good is known to the next one's, as among the processes of one server: only models that
# are new, or bad, cost a child process.
_KNOWN = tempfile.TemporaryDirectory(prefix="conductor-known-models-")
KNOWN_MODELS = Path(_KNOWN.name)


@asynccontextmanager
async def serving(redis_url: str, store: Path, telemetry: Telemetry = OFF, **changes: Any) -> AsyncIterator[Serving]:
    async with (
        application(
            settings(redis_url, store, **changes), telemetry=telemetry, known_models_directory=KNOWN_MODELS
        ) as server,
        client(f"127.0.0.1:{server.port}") as found,
    ):
        yield found


@asynccontextmanager
async def client(target: str) -> AsyncIterator[Serving]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield Serving(target, prediction_service_pb2_grpc.PredictionServiceStub(channel))


def seconds(duration: Any) -> float:
    return duration.ToNanoseconds() / 1e9
