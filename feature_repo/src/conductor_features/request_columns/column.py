"""What every request column tells of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One request column."""

    description: str
    unit: str
    """For example "1" for counts, ratios and yes (1) or no (0), "h" for hours."""
