"""What the figures should be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from conductor_workbench.bench.figures import Figures
from conductor_workbench.bench.parts import Part

INGESTION, CURVE, MODELS, TESTS = "ingestion", "curve", "models", "many_tests"
"""Where the figures of those parts stand; all others are of serving."""

_PARTS = {INGESTION: Part.INGESTION, CURVE: Part.CURVE, MODELS: Part.MODELS, TESTS: Part.TESTS}

_PREDICTED_P95 = ("predict", "at_rate", "latency", "p95_ms")


@dataclass(frozen=True)
class Target:
    """A figure and its bound."""

    what: str
    path: tuple[str, ...]
    """Where the figure stands."""
    bound: float
    at_least: bool = False
    """The figure must not be less; else it must not be more."""

    @property
    def part(self) -> Part:
        """Of which part it is."""
        return _PARTS.get(self.path[0], Part.SERVING)

    def judge(self, figures: Figures) -> Figures:
        """The target with the figure and whether it is met; a figure that was not measured meets nothing."""
        found: Any = figures
        for name in self.path:
            found = found.get(name) if isinstance(found, dict) else None
        met = isinstance(found, int | float) and (found >= self.bound if self.at_least else found <= self.bound)
        return {
            "what": self.what,
            "figure": ".".join(self.path),
            ("at_least" if self.at_least else "at_most"): self.bound,
            "measured": found,
            "met": met,
        }


TARGETS = (
    Target("Build events with all features, a second", (INGESTION, "builds", "items_per_s"), 3_000, at_least=True),
    Target("Test results with all features, a second", (INGESTION, "tests", "items_per_s"), 50_000, at_least=True),
    Target("Build events, share of raw COPY's rate", (INGESTION, "builds", "share_of_floor"), 0.4, at_least=True),
    Target("An event's cost at the curve's end, beside that at its first point", (CURVE, "last_ratio"), 1.25),
    Target("Test results, share of raw COPY's rate", (INGESTION, "tests", "share_of_floor"), 0.4, at_least=True),
    Target("From an event's acknowledgement to its feature online, p95 ms", (INGESTION, "freshness", "p95_ms"), 1_000),
    Target("Prediction at 100/s, p95 (required)", ("unary", "rate_100", "latency", "p95_ms"), 100.0),
    Target("Prediction at 100/s, p95 (aimed at)", ("unary", "rate_100", "latency", "p95_ms"), 10.0),
    Target(
        "Prediction with tracing, CPU over that without",
        ("unary_traced", "cpu_over_untraced", "by_default", "median"),
        1.03,
    ),
    Target(
        "Prediction, share of an empty echo's throughput: a call each",
        ("ratios", "unary_over_echo_throughput"),
        0.8,
        at_least=True,
    ),
    Target(
        "Prediction, share of an empty echo's throughput: streamed",
        ("ratios", "streamed_over_echo_throughput"),
        0.8,
        at_least=True,
    ),
    Target("Health check, p95", ("health", "latency", "p95_ms"), 10.0),
    Target("Features of 500 entities × 30, p95", ("feature_read", "entities_500", "read", "p95_ms"), 10.0),
    Target(
        "Features of 500 entities × 30, times faster than Feast's stock Redis store",
        ("feature_read", "entities_500", "feast_redis_over_read"),
        50.0,
        at_least=True,
    ),
    Target(
        "The same as one block",
        ("feature_read", "entities_500", "feast_redis_over_read_block"),
        50.0,
        at_least=True,
    ),
    Target("Start-up to SERVING", ("start_up", "most_seconds"), 30.0),
    Target("10,000 tenants' models: p95 beside that with one", (MODELS, "p95_many_over_one"), 2.0),
    Target("10,000 tenants' models: a change takes effect, s", (MODELS, "change", "most_s"), 2.0),
    Target("Failures of 2,000 tests, p95 ms (required)", (TESTS, "tests_2000", *_PREDICTED_P95), 100.0),
    Target("Failures of 2,000 tests, p95 ms (aimed at)", (TESTS, "tests_2000", *_PREDICTED_P95), 30.0),
    Target("Failures of 10,000 tests, p95 ms", (TESTS, "tests_10000", *_PREDICTED_P95), 150.0),
    Target("Resident memory of the server after load", ("memory", "after_load", "rss_mb"), 512.0),
)


def judge(figures: Figures, parts: Collection[Part]) -> list[Figures]:
    """Every target of the parts that were measured."""
    return [target.judge(figures) for target in TARGETS if target.part in parts]
