"""Samples into figures. Every figure's unit stands at the end of its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

Figures = dict[str, Any]
"""Figures by name, some of them nested. Plain JSON."""

_LEAST_SAMPLES = 5
MOST_SAMPLES = 20_000


def spread(samples: Sequence[float], unit: str, scale: float = 1.0) -> Figures:
    """Percentiles of ``samples × scale``: ``p50_<unit>`` and so on, with their count. Empty for no samples."""
    if not samples:
        return {"count": 0}
    scaled = np.asarray(samples, np.float64) * scale
    p50, p95, p99 = np.percentile(scaled, (50, 95, 99)).tolist()
    names = ("least", "p50", "p95", "p99", "most", "mean")
    values = (float(scaled.min()), p50, p95, p99, float(scaled.max()), float(scaled.mean()))
    return {"count": len(samples)} | {
        f"{name}_{unit}": significant(value) for name, value in zip(names, values, strict=True)
    }


def windows(counts_per_s: Sequence[float], unit: str) -> Figures:
    """Median, least and most of several windows."""
    return {
        f"median_{unit}": significant(float(np.median(counts_per_s))),
        f"least_{unit}": significant(min(counts_per_s)),
        f"most_{unit}": significant(max(counts_per_s)),
        "windows": len(counts_per_s),
    }


def significant(value: float) -> float:
    """Four significant digits: more would be noise, and a diff on every run."""
    return float(f"{value:.4g}")


def repeat(seconds: float, action: Callable[[], object]) -> list[float]:
    """Call ``action`` for so many seconds, a bounded number of times; the seconds that each call took."""
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < _LEAST_SAMPLES or (perf_counter() < end and len(samples) < MOST_SAMPLES):
        began = perf_counter()
        action()
        samples.append(perf_counter() - began)
    return samples
