"""What the metrics tell of the models that are loaded. Read when metrics are: a request pays nothing for them."""

from __future__ import annotations

from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.models.registry import Registry


def observe_models(registry: Registry, telemetry: Telemetry) -> None:
    """Let hits, misses, evictions, number and memory be read."""
    resident = registry.resident
    telemetry.observe(names.MODELS_RESIDENT, lambda: len(resident))
    telemetry.observe(names.MODELS_RESIDENT_MEMORY, lambda: resident.memory_bytes, unit="By")
    telemetry.observe(names.MODELS_KNOWN, lambda: registry.known_count)
    telemetry.observe(names.MODEL_HITS, lambda: registry.hit_count, total=True)
    telemetry.observe(names.MODEL_MISSES, lambda: registry.miss_count, total=True)
    telemetry.observe(names.MODEL_EVICTIONS, lambda: resident.eviction_count, total=True)
