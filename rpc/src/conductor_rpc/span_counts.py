"""Counts the spans that reach the collector, and those that do not."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class CountedExporter(SpanExporter):
    """Another exporter, counted."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.exported_count = 0
        self.lost_count = 0
        """Given up after the exporter's own attempts; what did not fit into the queue before it is not among them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch of spans."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported_count += len(spans)
        else:
            self.lost_count += len(spans)
        return result

    def shutdown(self) -> None:
        """Stop, without waiting for a collector that does not answer."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what is held back, if anything is."""
        return self._exporter.force_flush(timeout_millis)
