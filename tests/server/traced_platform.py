"""A real server whose traces are collected, and all that can make its answers slow or poor."""

from __future__ import annotations

import asyncio
import fcntl
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from onnx import helper

from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from conductor.model.v1.model_service_pb2 import RollbackModelRequest
from conductor.model.v1.model_service_pb2_grpc import ModelServiceStub
from conductor.prediction.v1.build_duration_pb2 import (
    BatchPredictBuildDurationsRequest,
    StreamBuildDurationPredictionsRequest,
)
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor.prediction.v1.provenance_pb2 import FallbackReason
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceStub
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_workbench.embedded import EmbeddedRedis
from conductor_workbench.faults import oracle, tests_model
from conductor_workbench.faults.proxy import Proxy
from server.harness import COLUMNS, PREDICTOR, graph, manifest, request, with_golden, write_features
from server.many import quick_store
from server.test_processes import command
from server.traces import Collector, Trace, collecting, new_trace

TENANTS = ("acme", "slow", "refused", "demanding", "trying", "shadowed")
LATE_SECONDS = 0.3
"""By which Redis is late, or the process stands still: longer than anything else takes."""
READ_SECONDS = 1.0
"""When a read of features is given up: long enough for a machine that is busy."""
WIDTH, LAYERS = 2_000, 100
"""Of the slow model, whose run takes longer than all the rest of a call."""
TENANT = oracle.tenant_id(0)
RUN = {
    "repository": tests_model.REPOSITORY,
    "commit_sha": "abc",
    "test_ids": tests_model.test_ids(range(2_000)),
    "changed_files": [{"path": tests_model.path_name(0)}],
}
LOADING = FallbackReason.FALLBACK_REASON_MODEL_LOADING
Metadata = tuple[tuple[str, str], ...]
Asking = Callable[[Metadata], Awaitable[Any]]


def slow_graph(bias: float) -> bytes:
    """What ``graph`` gives, after many large products that come to nothing."""
    constants = {
        "wide": np.ones((len(COLUMNS), WIDTH), np.float32),
        "square": np.eye(WIDTH, dtype=np.float32) / 2,
        "narrow": np.zeros((WIDTH, 1), np.float32),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["filled", "wide"], ["layer 0"]),
        *(node("MatMul", [f"layer {at}", "square"], [f"layer {at + 1}"]) for at in range(LAYERS)),
        node("MatMul", [f"layer {LAYERS}", "narrow"], ["nothing"]),
        node("Reshape", ["nothing", "flat"], ["extra"]),
    ]
    return graph(bias, extra=nodes, constants=constants)


def combined_diff(lines: int) -> bytes:
    """A merge of two parents that added so many lines each to one file."""
    header = f"diff --cc a.py\n--- a/a.py\n+++ b/a.py\n@@@ -1,{lines} -1,{lines} +1,{2 * lines} @@@\n"
    return header.encode() + b"+ x\n" * lines + b" +x\n" * lines


def publish_all(directory: Path) -> dict[str, str]:
    """Models of several tenants; one is slow, one can't be loaded, one requires what nobody says, one has a canary.

    By name, what a trace is to tell of each.
    """
    store, found = quick_store(directory), {}

    def publish(content: bytes, tenant_id: str = "", channel: str = "champion", change: Any = None) -> str:
        made = with_golden(manifest(content, tenant_id), content)
        if change is not None:
            change(made)
        version = store.publish(made, content, channel).version
        owner = f"tenants/{tenant_id}" if tenant_id else "global"
        found[tenant_id or "global", channel] = f"{PREDICTOR}/{owner}@{version}"
        return str(version)

    publish(graph(10))
    publish(graph(20), "acme")
    publish(slow_graph(30), "slow")
    publish(graph(40), "refused", change=lambda made: made.ClearField("golden_requests"))
    publish(graph(50), "demanding", change=lambda made: setattr(made.inputs[1], "required", True))
    publish(graph(60), "trying")
    store.promote(PREDICTOR, "trying", publish(graph(61), "trying", "canary"), "canary", weight=1.0)
    publish(graph(62), "trying", "shadow")
    publish(graph(70), "shadowed")
    publish(slow_graph(71), "shadowed", "shadow")
    tests = store.publish(*tests_model.model(TENANT, 1, datetime.now(UTC))).version
    return {
        **{tenant_id: told for (tenant_id, channel), told in found.items() if channel == "champion"},
        "shadow": found["shadowed", "shadow"],
        "canary": f"{found['trying', 'canary']} (canary)",
        "tests": f"{tests_model.PREDICTOR}/tenants/{TENANT}@{tests}",
    }


@dataclass
class Platform:
    """A server, its Redis behind a proxy, and the collector of its spans."""

    process: Any
    proxy: Proxy
    collector: Collector
    channel: grpc.aio.Channel
    audit_file: Path
    models: dict[str, str]

    def __post_init__(self) -> None:
        self.predictions = PredictionServiceStub(self.channel)
        self.tests = TestIntelligenceServiceStub(self.channel)

    def unary(self, tenant_id: str = "acme", *, explain: int = 0, **fields: Any) -> Asking:
        message = request(tenant_id, **fields)
        message.contribution_count = explain
        return lambda metadata: self.predictions.PredictBuildDuration(message, metadata=metadata, timeout=60)

    def batch(self, tenant_id: str = "acme", count: int = 10) -> Asking:
        items = [request(tenant_id, branch=f"b{number}") for number in range(count)]
        message = BatchPredictBuildDurationsRequest(tenant_id=tenant_id, requests=items)
        return lambda metadata: self.predictions.BatchPredictBuildDurations(message, metadata=metadata, timeout=60)

    def items(self, *tenant_ids: str, timeout_seconds: float = 60) -> Asking:
        """One message, so they are answered together."""

        async def ask(metadata: Metadata) -> None:
            stream = self.predictions.StreamBuildDurationPredictions(metadata=metadata, timeout=60)
            message = StreamBuildDurationPredictionsRequest()
            for number, tenant_id in enumerate(tenant_ids):
                item = message.items.add(id=number, request=request(tenant_id))
                item.timeout.FromNanoseconds(round(timeout_seconds * 1e9))
            await stream.write(message)
            await stream.done_writing()
            async for _ in stream:
                pass

        return ask

    def tensors(self, tenant_id: str, rows: int = 2) -> Asking:
        message = ModelInferRequest(model_name=PREDICTOR)
        message.parameters["tenant_id"].string_param = tenant_id
        tensor = message.inputs.add(name="inputs", datatype="FP32", shape=[rows, len(COLUMNS)])
        tensor.contents.fp32_contents.extend([1.0] * len(COLUMNS) * rows)
        stub = GRPCInferenceServiceStub(self.channel)
        return lambda metadata: stub.ModelInfer(message, metadata=metadata, timeout=60)

    def select(self, *must_run: str) -> Asking:
        message = SelectTestsRequest(tenant_id=TENANT, run=RUN, miss_rate=0.1, must_run=must_run)
        return lambda metadata: self.tests.SelectTests(message, metadata=metadata, timeout=60)

    def predict(self, diff: bytes) -> Asking:
        run = {"repository": tests_model.REPOSITORY, "test_ids": tests_model.test_ids([0]), "diff": diff}
        message = PredictTestFailuresRequest(tenant_id=TENANT, run=run)
        return lambda metadata: self.tests.PredictTestFailures(message, metadata=metadata, timeout=60)

    def order(self) -> Asking:
        async def ask(metadata: Metadata) -> None:
            message = PrioritizeTestsRequest(tenant_id=TENANT, run=RUN)
            async for _ in self.tests.PrioritizeTests(message, metadata=metadata, timeout=60):
                pass

        return ask

    def classify(self, diff: bytes) -> Asking:
        [test_id] = tests_model.test_ids([0])
        run = {"repository": tests_model.REPOSITORY, "diff": diff}
        message = ClassifyFailureRequest(tenant_id=TENANT, run=run, test_id=test_id)
        return lambda metadata: self.tests.ClassifyFailure(message, metadata=metadata, timeout=60)

    def roll_back(self) -> Asking:
        message = RollbackModelRequest(tenant_id="nobody", predictor=PREDICTOR)
        stub = ModelServiceStub(self.channel)
        return lambda metadata: stub.RollbackModel(message, metadata=metadata, timeout=60)

    def stopped(self, ask: Asking) -> Asking:
        """Ask while the process stands still."""

        async def ask_it(metadata: Metadata) -> None:
            self.process.send_signal(signal.SIGSTOP)
            asked = asyncio.ensure_future(_asked(ask, metadata))
            try:
                await asyncio.sleep(LATE_SECONDS)
            finally:
                self.process.send_signal(signal.SIGCONT)
            await asked

        return ask_it

    def with_audit_log_held(self, ask: Asking) -> Asking:
        """Ask while somebody else writes to the audit log."""

        async def ask_it(metadata: Metadata) -> None:
            with self.audit_file.open("ab") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                asked = asyncio.ensure_future(_asked(ask, metadata))
                await asyncio.sleep(LATE_SECONDS)
            await asked

        return ask_it

    async def calm(self) -> None:
        """Wait until answers are in full."""
        async with asyncio.timeout(60):
            while (await self.unary()(())).provenance.missing_features:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)

    async def settled(self, tenant_id: str) -> None:
        """Wait until the tenant's own model has been loaded, or refused."""
        ask = self.unary(tenant_id)
        async with asyncio.timeout(60):
            while (await ask(())).provenance.fallback_reason == LOADING:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)

    async def trace(self, ask: Asking, *, sampled: bool = False, tenant_id: str = "", tries: int = 1) -> Trace:
        """Ask, whatever comes of it; the trace of the call, or of a tenant's item of the stream.

        ``tries``: more than one where a machine that is busy may keep what is asked for from coming about.
        """
        for remaining in reversed(range(tries)):
            trace_id, metadata = new_trace(sampled=sampled)
            try:
                await ask(metadata)
            except grpc.aio.AioRpcError as error:
                assert error.code() is not grpc.StatusCode.UNAVAILABLE, error.details()
            try:
                return await self.collector.trace(trace_id, tenant_id, seconds=3 if remaining else 30)
            except TimeoutError:
                if not remaining:
                    raise
        raise ValueError(tries)


async def _asked(ask: Asking, metadata: Metadata) -> None:
    await ask(metadata)


@asynccontextmanager
async def platform(directory: Path) -> AsyncIterator[Platform]:
    """One that has answered before."""
    with ExitStack() as stack:
        store = stack.enter_context(EmbeddedRedis(directory / "redis", tcp=True))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{store.port}"))
        collector, environment = stack.enter_context(collecting())
        for tenant_id in TENANTS:
            write_features(store.url, tenant_id)
        tests_model.plant(store.url, datetime.now(UTC) - timedelta(minutes=1))
        models, audit_file = publish_all(directory / "models"), directory / "audit.log"
        environment |= {
            "CONDUCTOR_FEATURE_TIMEOUT_SECONDS": str(READ_SECONDS),
            "CONDUCTOR_TEST_FEATURE_TIMEOUT_SECONDS": "10",
            "CONDUCTOR_MODEL_VERIFICATION_SECONDS": "60",  # the slow model's, by a process that lets others go first
            "CONDUCTOR_AUDIT_FILE": str(audit_file),
            "CONDUCTOR_TENANT_RATES": '{"modest": 1}',  # what it has asked below is too much for minutes
        }
        places = ("--redis-url", f"redis://{proxy.target}/0", "--model-store", str(directory / "models"))
        async with (
            command("--insecure", *places, "--grace", "0", environment=environment) as process,
            grpc.aio.insecure_channel(process.address) as channel,
        ):
            found = Platform(process, proxy, collector, channel, audit_file, models)
            for tenant_id in TENANTS:
                await found.settled(tenant_id)
            for ask in (found.select(), found.batch("modest", 500)):
                await ask(())
            yield found
