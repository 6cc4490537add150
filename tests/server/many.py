"""Many tenants' models in one store, and what each of them answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store import ModelStore, ModelStoreUnavailable, ModelVersion
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.sessions import open_session, run_session
from conductor_storage import ObstoreObjects
from server.harness import PREDICTOR, graph, manifest, request, seconds, with_golden

OUTPUTS = ("lower", "median", "upper")


def quick_store(location: Path) -> ModelStore:
    """A store that does not wait for the disk."""
    return ModelStore(ObstoreObjects(location, unavailable=ModelStoreUnavailable, durable=False))


class Fleet:
    """Publishes models and recomputes, by ONNX Runtime on the published graph, what they answer."""

    def __init__(self, location: Path) -> None:
        self.store = quick_store(location)
        self._medians: dict[tuple[str, str, float], float] = {}

    def publish(
        self,
        bias: float,
        tenant_id: str = "",
        *,
        channel: str = "champion",
        change: Callable[[ModelManifest], None] | None = None,
    ) -> ModelVersion:
        content = graph(bias)
        result = with_golden(manifest(content, tenant_id), content)
        if change is not None:
            change(result)
        return self.store.publish(result, content, channel)

    def publish_all(self, tenants: Iterable[str], first_bias: float = 100.0) -> dict[str, ModelVersion]:
        return {tenant: self.publish(first_bias + at, tenant) for at, tenant in enumerate(tenants)}

    def median(self, tenant_id: str, version: str, row: tuple[float, ...]) -> float:
        """What a stored version answers to a row."""
        key = (tenant_id, version, row[1])
        if key not in self._medians:
            loaded = self.store.load(PREDICTOR, tenant_id, version)
            outputs = run_session(open_session(loaded.graph), "inputs", OUTPUTS, np.array([row], np.float32))
            self._medians[key] = float(outputs[0, 1])
        return self._medians[key]

    def is_right(self, tenant_id: str, answer: Any, row: tuple[float, ...]) -> bool:
        """Whether an answer is of a model that may answer for the tenant, and is what that model says."""
        name = answer.provenance.model_name
        owner = {f"models/{PREDICTOR}/global": "", f"models/{PREDICTOR}/tenants/{tenant_id}": tenant_id}.get(name)
        if owner is None:
            return False
        return abs(seconds(answer.duration) - self.median(owner, answer.provenance.model_version, row)) < 1e-3


def measured() -> tuple[Telemetry, Callable[[], dict[str, float]]]:
    """Telemetry, and a function that reads its counters and gauges by name."""
    reader = InMemoryMetricReader()

    def read() -> dict[str, float]:
        found: dict[str, float] = {}
        data = reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = point.value if hasattr(point, "value") else point.count
                        found[metric.name] = found.get(metric.name, 0) + value
        return found

    return Telemetry(None, MeterProvider([reader])), read


def on(branch: str, lines: int | None = 0):
    """A request about a branch: the entity that shares of a roll-out go by."""
    return request(lines=lines, branch=branch)
