"""Every metric that the processes of an installation export: started for real, used a little, and scraped."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

import ending
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.events.v1.event_service_pb2_grpc import EventServiceStub
from conductor.inference.v2.inference_service_pb2 import ModelInferRequest
from conductor.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_intelligence_service_pb2_grpc import TestIntelligenceServiceStub
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_run_pb2 import TestRunContext
from conductor_rpc.admin.beside import telemetry_beside
from conductor_rpc.exporters import telemetry_from_environment
from conductor_server.app import application as prediction_application
from conductor_warehouse.app import EventServiceSettings
from conductor_warehouse.app import application as event_application
from conductor_warehouse.settings import WarehouseSettings
from conductor_warehouse.tailing_writer import TailingWriter
from conductor_workbench.embedded.redis import free_port
from rpc.harness import Keys, bearer
from server.harness import PREDICTOR, request, settings, write_features
from server.intelligence_scene import write_past
from server.many import Fleet
from server.secured import secured_settings
from training.test_runs import make_runs
from warehouse.test_event_service import EVENTS

SECONDS = 60.0
TESTS = make_runs(runs=1, tests=3)[0]


class Exported:
    """Series by name: the labels of each."""

    def __init__(self) -> None:
        self.series: defaultdict[str, list[dict[str, str]]] = defaultdict(list)

    def scrape(self, port: int, job: str) -> None:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.series[sample.name].append({"job": job, "instance": f"{job}:1", **sample.labels})
        self.series["up"].append({"job": job, "instance": f"{job}:1"})  # Prometheus' own


async def everything(redis_url: str, database_url: str, directory: Path) -> Exported:
    """Start all, use all, scrape all. Where the prediction server's traces go to, nobody listens."""
    found = Exported()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
        await _prediction_server(found, redis_url, directory)
    await _event_service(found, database_url)
    await asyncio.to_thread(_tailing_writer, found, database_url, redis_url)
    return found


async def _prediction_server(found: Exported, redis_url: str, directory: Path) -> None:
    keys, fleet = Keys(), Fleet(directory / "models")
    authority, secured = secured_settings(directory, keys)
    fleet.publish(10)
    fleet.publish(20, channel="shadow")
    write_features(redis_url)
    write_past(redis_url, [replace(TESTS, started=time.time() - 60, completed=time.time() - 30)])
    secured |= {"admin_http_port": 0, "max_in_flight_count": 2, "feature_timeout_seconds": 10}
    telemetry, close = telemetry_from_environment("conductor-server", prometheus=True)
    serving = prediction_application(settings(redis_url, directory / "models", **secured), telemetry=telemetry)
    async with serving as server:
        target, credentials = f"127.0.0.1:{server.port}", authority.credentials()
        async with grpc.aio.secure_channel(target, credentials) as channel, Redis.from_url(redis_url) as redis:
            await _predict(channel, redis, bearer(keys.token()))
        # The shadow is asked after the answers.
        await asyncio.to_thread(_await_series, server.admin.http_port, "conductor_model_variant_difference")
        await asyncio.to_thread(found.scrape, server.admin.http_port, "conductor-server")
    await asyncio.to_thread(close)


async def _predict(channel: grpc.aio.Channel, redis: Redis, metadata: tuple[tuple[str, str], ...]) -> None:
    stub = PredictionServiceStub(channel)
    await stub.PredictBuildDuration(request(), metadata=metadata)
    await stub.PredictBuildDuration(request(repository="unknown"), metadata=metadata)
    batch = BatchPredictBuildDurationsRequest(tenant_id="acme", requests=[request(), request()])
    await stub.BatchPredictBuildDurations(batch, metadata=metadata)
    tensors = ModelInferRequest(model_name=PREDICTOR)
    tensors.inputs.add(name="inputs", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1.0] * 4)
    await GRPCInferenceServiceStub(channel).ModelInfer(tensors, metadata=metadata)
    tests = TestIntelligenceServiceStub(channel)
    about = TestRunContext(repository=TESTS.repository, test_ids=TESTS.tests)
    await tests.PredictTestFailures(PredictTestFailuresRequest(tenant_id="acme", run=about), metadata=metadata)
    order = tests.PrioritizeTests(PrioritizeTestsRequest(tenant_id="acme", run=about), metadata=metadata)
    assert [part async for part in order]
    await redis.execute_command("CLIENT", "PAUSE", 1000, "ALL")  # calls pile up meanwhile
    calls = [stub.PredictBuildDuration(request(), metadata=metadata) for _ in range(4)]
    codes = {(await call.code()).name for call in calls}
    assert codes == {"OK", "RESOURCE_EXHAUSTED"}, codes


async def _event_service(found: Exported, database_url: str) -> None:
    async def requests_():
        broken = CloudEvent(id="broken", source="/ci", tenant_id="acme")
        yield PublishEventsRequest(tenant_id="acme", events=[*EVENTS[:20], broken])

    telemetry, close = telemetry_from_environment("conductor-warehouse", prometheus=True)
    asked = EventServiceSettings(port=0, insecure=True, grace_seconds=0, admin_http_port=0)
    async with event_application(asked, WarehouseSettings(database_url=database_url), telemetry=telemetry) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            answer = await EventServiceStub(channel).PublishEvents(requests_())
            assert (answer.stored_count, answer.dead_letter_count) == (20, 1)
        await asyncio.to_thread(found.scrape, server.admin.http_port, "conductor-events")
    await asyncio.to_thread(close)


def _tailing_writer(found: Exported, database_url: str, redis_url: str) -> None:
    port = free_port()
    with telemetry_beside("conductor-tail", "127.0.0.1", port, lambda: True) as telemetry:
        writer = TailingWriter(database_url, redis_url, poll_seconds=0.05, telemetry=telemetry)
        with ending.thread(writer.run):
            _await_series(port, "conductor_online_delay_seconds_count")
            found.scrape(port, "conductor-tail")


def _await_series(port: int, name: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        once = Exported()
        once.scrape(port, "")
        if any(found.startswith(name) for found in once.series):
            return
        assert time.monotonic() < deadline, name
        time.sleep(0.05)
