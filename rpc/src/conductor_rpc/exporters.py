"""OpenTelemetry providers, as the OTEL_* environment asks for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from conductor_rpc import names
from conductor_rpc.call_log import CallLog
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.tracing import SLOW_SECONDS

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from prometheus_client import CollectorRegistry

_FLUSH_SECONDS = 2.0
"""How long a process that ends waits for its collector."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_{}_ENDPOINT")


def _wanted(signal: str) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER", "")
    if exporter:
        return exporter == "otlp"
    return any(os.environ.get(name.format(signal)) for name in _ENDPOINTS)


def telemetry_from_environment(
    service_name: str, *, prometheus: bool = False, slow_seconds: float = SLOW_SECONDS
) -> tuple[Telemetry, Callable[[], None]]:
    """Telemetry over OTLP if OTEL_* names an endpoint or exporter, else telemetry that is off.

    Exporting happens in threads of its own with bounded queues: a collector that hangs costs dropped spans, not time.

    Args:
        service_name: Where OTEL_SERVICE_NAME names none.
        prometheus: Keep metrics for Prometheus to read, too: in ``Telemetry.registry``.
        slow_seconds: A call that takes so long is traced, whatever the sampler says.

    Returns:
        The telemetry, and a function that flushes and closes it.
    """
    call_log = CallLog(slow_seconds)
    traces, metrics = _wanted("TRACES"), _wanted("METRICS")
    if not traces and not metrics and not prometheus:
        return Telemetry(call_log=call_log), lambda: None
    # Imported only here: the SDK and the exporters cost start-up time and memory that a process without them keeps.
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME", service_name)
    resource = Resource.create({"service.name": name, "service.instance.id": str(os.getpid())})
    tracer_provider, meter_provider, registry, head, spans = None, None, None, None, None
    readers: list[MetricReader] = []
    closing: list[Callable[[], None]] = []
    if traces:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        from conductor_rpc.sampling import head_sampler  # noqa: PLC0415
        from conductor_rpc.span_counts import CountedExporter  # noqa: PLC0415
        from conductor_rpc.trace_ids import GivenIds  # noqa: PLC0415

        spans = CountedExporter(OTLPSpanExporter())
        head, tracer_provider = head_sampler(), TracerProvider(ALWAYS_ON, resource, id_generator=GivenIds())
        tracer_provider.add_span_processor(BatchSpanProcessor(spans))
        closing.append(lambda: _close(tracer_provider.force_flush, spans.shutdown, tracer_provider.shutdown))
    if prometheus:
        registry, reader = _prometheus()
        readers.append(reader)
    if metrics:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

        points = OTLPMetricExporter()
        readers.append(PeriodicExportingMetricReader(points))
    if readers:
        meter_provider = MeterProvider(readers, resource=resource)
        stop_exporting = points.shutdown if metrics else lambda: None
        closing.append(lambda: _close(meter_provider.force_flush, stop_exporting, meter_provider.shutdown))

    def close() -> None:
        for close_provider in closing:
            close_provider()

    telemetry = Telemetry(
        tracer_provider, meter_provider, registry, head=head, slow_seconds=slow_seconds, call_log=call_log
    )
    if spans is not None:
        telemetry.observe(names.SPANS_EXPORTED, lambda: spans.exported_count, total=True)
        telemetry.observe(names.SPANS_LOST, lambda: spans.lost_count, total=True)
    return telemetry, close


def _prometheus() -> tuple[CollectorRegistry, MetricReader]:
    """A registry of our own (the library's shared one would be filled by other libraries), and what fills it."""
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415

    from conductor_rpc.exemplars import PrometheusReader  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry, PrometheusReader(registry)


def _close(flush: Callable[[], object], stop_exporting: Callable[[], object], shut_down: Callable[[], object]) -> None:
    """Flush for a while, then give up what is left: a collector that hangs must not keep a server from ending."""
    flushing = threading.Thread(target=flush, name="telemetry-flush", daemon=True)
    flushing.start()
    flushing.join(_FLUSH_SECONDS)
    stop_exporting()
    shut_down()
