"""A feature view of 30 fields that only the bench knows, and rows for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from conductor_features.views import Field, View

FIELD_COUNT = 30
ENTITY_COUNTS = (1, 50, 500)
VIEW = View(
    name="bench_thirty",
    version=1,
    entity=("tenant_id", "entity_id"),
    fields=tuple(Field(f"field_{number:02d}", "A random number.", "1") for number in range(FIELD_COUNT)),
    maximum_age=timedelta(days=365),
    owner="bench",
    description="Random numbers, for measuring.",
    lineage=(),
)


def entities(count: int) -> list[tuple[str, ...]]:
    """The first ``count`` entities."""
    return [("bench", f"entity-{number:04d}") for number in range(count)]


def values(count: int) -> NDArray[np.float64]:
    """Their values, ``[count, 30]``; the same every time."""
    return np.random.default_rng(7).normal(size=(count, FIELD_COUNT))


def event_time() -> datetime:
    """A moment that is no older than the view's rows may be."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
