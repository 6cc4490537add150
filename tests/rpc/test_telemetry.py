"""Spans and metrics, recorded by the real SDK."""

from __future__ import annotations

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Call
from conductor_rpc.telemetry import OFF, Telemetry
from rpc.harness import bearer, request, serving

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


async def test_a_call_and_its_stages_under_the_callers_trace(secure, keys, authority):
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer_provider, MeterProvider([reader]))
    token = keys.token()
    async with serving(telemetry, **secure) as running, running.stub(authority.credentials()) as stub:
        caller = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),)
        await stub.PredictBuildDuration(request(), metadata=(*bearer(token), *caller))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PredictBuildDuration(request(change={"added_line_count": -1}), metadata=bearer(token))
    spans = exporter.get_finished_spans()
    ours = {span.name: span for span in spans if f"{span.context.trace_id:032x}" == TRACE_ID}
    method = "conductor.prediction.v1.PredictionService/PredictBuildDuration"
    assert set(ours) == {method, names.RECEIVE, names.AUTH, names.ADMISSION}
    assert ours[names.AUTH].parent.span_id == ours[method].context.span_id
    codes = [span.attributes[names.RPC_RESPONSE_STATUS_CODE] for span in spans if span.name == method]
    assert codes == ["OK", "INVALID_ARGUMENT"]
    metrics = {
        metric.name: metric
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert metrics[names.RPC_SERVER_CALL_DURATION].unit == "s"
    points = metrics[names.RPC_SERVER_CALL_DURATION].data.data_points
    assert sum(point.count for point in points) == 2
    assert 0.1 in points[0].explicit_bounds
    recorded = f"{spans} {metrics}"
    assert token not in recorded
    assert "acme" not in recorded, "no tenant and no entity in telemetry"


def test_a_stage_of_many_calls_is_recorded_once():
    reader = InMemoryMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider([reader]))
    calls = [Call("/a.Service/Method", {}, NO_DEADLINE) for _ in range(3)]
    for together in (calls, calls[:1], []):  # the last is nobody's call
        with telemetry.shared_stage(names.MODEL_RUN, together):
            pass
    found = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    [stages] = [metric for metric in found if metric.name == names.STAGE_DURATION]
    assert [(dict(point.attributes), point.count) for point in stages.data.data_points] == [
        ({names.STAGE: names.MODEL_RUN}, 3)
    ]


async def test_timings_for_who_asks(secure, keys, authority):
    async with serving(**secure) as running, running.stub(authority.credentials()) as stub:
        call = stub.PredictBuildDuration(request(), metadata=(*bearer(keys.token()), ("server-timing", "1")))
        await call
        assert "auth;dur=" in dict(await call.trailing_metadata())["server-timing"]
        call = stub.PredictBuildDuration(request(), metadata=bearer(keys.token()))
        await call
        assert "server-timing" not in dict(await call.trailing_metadata())


def test_off_is_one_shared_nothing():
    assert OFF.stage("a") is OFF.stage("b")


def test_exporters_only_when_asked_for(monkeypatch):
    from conductor_rpc.exporters import telemetry_from_environment

    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    telemetry, close = telemetry_from_environment("test")
    assert telemetry._traces is None
    close()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    telemetry, close = telemetry_from_environment("test")
    assert telemetry._traces is not None
    assert telemetry._meter is None
    close()
