"""Telemetry that keeps in memory what it would export."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio

from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.trace_ids import GivenIds
from rpc.harness import PREDICTION

METHOD = f"{PREDICTION}/PredictBuildDuration"
STALLS = (names.EVENT_LOOP_STALL, names.GC_PAUSE)
NEVER = 60.0
"""Seconds from which a call is slow."""
OFF_BUT_FOR_CALLERS = ParentBasedTraceIdRatio(0.0)


class Traced:
    """Telemetry with what it exported."""

    def __init__(self, head=OFF_BUT_FOR_CALLERS, slow_seconds=NEVER):
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        provider = TracerProvider(ALWAYS_ON, id_generator=GivenIds())
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(provider, MeterProvider([self._reader]), head=head, slow_seconds=slow_seconds)

    @property
    def all_spans(self):
        """But for stalls: the machine has them as it likes."""
        return [span for span in self._exporter.get_finished_spans() if span.name not in STALLS]

    @property
    def stalls(self):
        return [span for span in self._exporter.get_finished_spans() if span.name in STALLS]

    @property
    def spans(self):
        """Spans by name; each name once."""
        found = self.all_spans
        by_name = {span.name: span for span in found}
        assert len(by_name) == len(found)
        return by_name

    @property
    def calls(self):
        return [span for span in self.all_spans if span.name == METHOD]

    def exemplars(self, metric):
        return [
            exemplar
            for resource in self._reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
            for exemplar in point.exemplars
        ]
