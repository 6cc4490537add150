"""What gRPC refuses by itself, before anybody here sees it, is counted."""

from __future__ import annotations

import asyncio
import time

import grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor.prediction.v1 import prediction_service_pb2_grpc
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from rpc.harness import request, serving

BURST, PENDING = 30, 4


async def test_what_grpc_refuses_by_itself_is_counted():
    reader = InMemoryMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider([reader]))
    async with serving(telemetry, max_pending_count=PENDING, max_in_flight_count=PENDING) as running:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(running.target, options=options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            await asyncio.to_thread(stub.PredictBuildDuration, request())
            calls = [stub.PredictBuildDuration.future(request(), timeout=30) for _ in range(BURST)]
            until = time.monotonic() + 30
            while sum(call.done() for call in calls) < BURST - 3 * PENDING and time.monotonic() < until:
                time.sleep(0.02)  # noqa: ASYNC251 - the loop must not turn
            refused = await asyncio.to_thread(lambda: [call.code().name for call in calls].count("CANCELLED"))
            assert refused >= BURST - 3 * PENDING
            assert dropped(reader) in (0, refused)  # one reading alone can't tell them from those that wait
            assert dropped(reader) == refused
            for _ in range(10):
                await asyncio.to_thread(stub.PredictBuildDuration, request())
        assert dropped(reader) == refused


def dropped(reader: InMemoryMetricReader) -> int:
    found = reader.get_metrics_data()
    return next(
        point.value
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == names.DROPPED
        for point in metric.data.data_points
    )
