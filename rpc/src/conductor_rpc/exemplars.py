"""OpenTelemetry's metrics for Prometheus to read, with their exemplars: the traces that stand for a bucket.

OpenTelemetry's own exporter leaves exemplars out (ADR 25). They are written where the reader asks for OpenMetrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

_Bucket = tuple[str, frozenset[tuple[str, str]], float]
"""Name, labels and upper edge."""


class PrometheusReader(PrometheusMetricReader):
    """Fills a registry when it is read. Of each bucket the last exemplar is kept, so several may read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._found: dict[_Bucket, Exemplar] = {}
        without = CollectorRegistry(auto_describe=False)
        super().__init__(scope_info_enabled=False, registry=without)
        registry.register(_WithExemplars(without, self._found))

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> None:
        for name, point in _histogram_points(metrics_data):
            edges = (*point.explicit_bounds, float("inf"))
            for exemplar in point.exemplars:
                if not exemplar.trace_id:
                    continue
                edge = edges[bisect_left(point.explicit_bounds, exemplar.value)]
                self._found[_bucket(name, point.attributes or {}, edge)] = Exemplar(
                    {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"},
                    exemplar.value,
                    exemplar.time_unix_nano / 1e9,
                )
        super()._receive_metrics(metrics_data, timeout_millis, **options)


class _WithExemplars(Collector):
    """What is in a registry, with exemplars."""

    def __init__(self, registry: CollectorRegistry, found: Mapping[_Bucket, Exemplar]) -> None:
        self._registry, self._found = registry, found

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            if metric.type == "histogram" and self._found:
                name = metric.name.removesuffix(f"_{metric.unit}")
                metric.samples = [self._with_exemplar(name, sample) for sample in metric.samples]
            yield metric

    def _with_exemplar(self, name: str, sample: Sample) -> Sample:
        if not sample.name.endswith("_bucket"):
            return sample
        labels = dict(sample.labels)
        edge = float(labels.pop("le"))
        return sample._replace(exemplar=self._found.get(_bucket(name, labels, edge)))


def _histogram_points(data: MetricsData) -> Iterable[tuple[str, HistogramDataPoint]]:
    """Those that have exemplars, with the metric's name."""
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    if isinstance(point, HistogramDataPoint) and point.exemplars:
                        yield metric.name, point


def _bucket(name: str, attributes: Mapping[str, Any], edge: float) -> _Bucket:
    """A bucket by the names that Prometheus has; it fills up labels that only some series of a metric have."""
    labels = frozenset((key.replace(".", "_"), str(value)) for key, value in attributes.items() if value != "")
    return name.replace(".", "_"), labels, edge
