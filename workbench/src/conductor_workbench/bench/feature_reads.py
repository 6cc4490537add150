"""Reads of features beside their floors."""

from __future__ import annotations

from pathlib import Path

from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.thirty_fields import FIELD_COUNT


def measure_feature_reads(redis_url: str, seconds: float, logs: Path) -> Figures:
    """Latency by number of entities, each with how many times slower than our reader Feast's stock path is."""
    request = {"redis_url": redis_url, "seconds": seconds}
    with Child("conductor_workbench.bench.packed_reads", logs / "packed-reads.log") as packed:
        ours = packed.ask(request)
    with Child("conductor_workbench.bench.feast_reads", logs / "feast-reads.log") as feast:
        theirs = feast.ask(request)
    found: Figures = {"fields": FIELD_COUNT}
    for count, figures in ours.items():
        beside = figures | theirs[count]
        stock, read, floor = (beside[name]["p50_ms"] for name in ("feast_redis", "read", "redis_mget"))
        found[f"entities_{count}"] = beside | {
            "feast_redis_over_read": significant(stock / read),
            "feast_redis_over_read_block": significant(stock / beside["read_block"]["p50_ms"]),
            "feast_packed_over_read": significant(beside["feast_packed"]["p50_ms"] / read),
            "read_over_redis_mget": significant(read / floor),
        }
    return found
