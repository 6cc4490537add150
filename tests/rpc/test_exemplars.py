"""From a bucket of the histogram to a trace: on /metrics, for who asks for OpenMetrics."""

from __future__ import annotations

import asyncio

import requests
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from conductor_rpc.exemplars import PrometheusReader
from conductor_rpc.telemetry import Telemetry
from rpc.harness import request, serving
from rpc.traced import METHOD, NEVER, OFF_BUT_FOR_CALLERS

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def scrape(port, accept):
    answer = await asyncio.to_thread(
        requests.get, f"http://127.0.0.1:{port}/metrics", headers={"accept": accept}, timeout=10
    )
    return answer.text


def exemplars(text):
    """Of the histogram of calls that ended well: (upper edge, exemplar)."""
    return [
        (float(sample.labels["le"]), sample.exemplar)
        for family in text_string_to_metric_families(text)
        if family.name == "rpc_server_call_duration_seconds"
        for sample in family.samples
        if sample.exemplar and sample.labels["rpc_response_status_code"] == "OK"
    ]


async def test_a_slow_bucket_points_to_the_trace_of_a_call_that_is_kept():
    spans, registry = InMemorySpanExporter(), CollectorRegistry()
    provider = TracerProvider(ALWAYS_ON)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([PrometheusReader(registry)])

    async def fail(_):
        raise RuntimeError

    async def take_long_and_fall_back(_):  # the latter has it kept: how long a busy machine takes for others has not
        await asyncio.sleep(0.2)
        telemetry.annotate({}, fell_back=True)

    telemetry = Telemetry(provider, meters, registry, head=OFF_BUT_FOR_CALLERS, slow_seconds=NEVER)
    async with serving(telemetry, admin_http_port=0) as running, running.stub() as stub:
        port = running.server.admin.http_port
        await stub.PredictBuildDuration(request())
        assert exemplars(await scrape(port, OPENMETRICS)) == [], "it was not kept"
        running.predictions.behaviour = take_long_and_fall_back
        await stub.PredictBuildDuration(request())
        running.predictions.behaviour = fail
        call = stub.PredictBuildDuration(request())
        assert (await call.code()).name == "INTERNAL"  # gives all series another label, error.type
        texts = [await scrape(port, OPENMETRICS) for _ in range(2)]
        plain = await scrape(port, "text/plain")
    [root] = [span for span in spans.get_finished_spans() if span.name == METHOD and span.status.is_ok]
    for text in texts:  # also the second of two who scrape
        [(edge, exemplar)] = exemplars(text)
        assert exemplar.labels["trace_id"] == f"{root.context.trace_id:032x}"
        assert exemplar.labels["span_id"] == f"{root.context.span_id:016x}"
        assert 0.2 <= exemplar.value <= edge < NEVER
    assert "trace_id" not in plain, "the older form has no place for them"
