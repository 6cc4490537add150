"""Reads of features beside their floors."""

from __future__ import annotations

from pathlib import Path

from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, significant, spread
from conductor_workbench.bench.thirty_fields import ENTITY_COUNTS, FIELD_COUNT

_ROUNDS = 3


def measure_feature_reads(redis_url: str, seconds: float, logs: Path) -> Figures:
    """Latency by number of entities, each with how many times slower than our reader Feast's stock path is.

    Everything is measured for ``seconds``, by turns: what else runs on the machine then hits all alike.
    """
    with (
        Child("conductor_workbench.bench.packed_reads", logs / "packed-reads.log") as packed,
        Child("conductor_workbench.bench.feast_reads", logs / "feast-reads.log") as feast,
    ):
        packed.ask({"redis_url": redis_url})
        feast.ask({"redis_url": redis_url})
        found: Figures = {"fields": FIELD_COUNT}
        for count in ENTITY_COUNTS:
            samples: dict[str, list[float]] = {}
            for _ in range(_ROUNDS):
                request = {"redis_url": redis_url, "count": count, "seconds": seconds / _ROUNDS}
                for name, more in (packed.ask(request) | feast.ask(request)).items():
                    samples.setdefault(name, []).extend(more)
            found[f"entities_{count}"] = _beside({name: spread(taken, "ms", 1e3) for name, taken in samples.items()})
    return found


def _beside(figures: Figures) -> Figures:
    stock, packed, floor = (figures[name]["p50_ms"] for name in ("feast_redis", "feast_packed", "redis_mget"))
    read, block = figures["read"]["p50_ms"], figures["read_block"]["p50_ms"]
    return figures | {
        "feast_redis_over_read": significant(stock / read),
        "feast_redis_over_read_block": significant(stock / block),
        "feast_redis_values_over_read": significant(figures["feast_redis_values"]["p50_ms"] / read),
        "feast_redis_over_read_at_best": significant(figures["feast_redis"]["least_ms"] / figures["read"]["least_ms"]),
        "feast_packed_over_read": significant(packed / read),
        "read_over_redis_mget": significant(read / floor),
    }
