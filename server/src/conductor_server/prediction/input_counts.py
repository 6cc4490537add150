"""Counts how often each of a model's features was missing, so that somebody notices when that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry
from conductor_server.prediction.gathering import FeaturesUsed

_MOST_FEATURES = 200
OTHER = "other"


class InputCounts:
    """Those of one predictor's models. Read when metrics are: a request pays next to nothing for them."""

    def __init__(self, predictor: str, telemetry: Telemetry) -> None:
        self._missing: Counter[str] = Counter()
        self._row_count = 0
        telemetry.observe_by(names.PREDICTOR, names.INPUT_ROWS, lambda: {predictor: self._row_count})
        attributes = {names.PREDICTOR: predictor}
        telemetry.observe_by(names.FEATURE, names.INPUT_MISSING, lambda: self._missing, attributes)

    def add(self, used: Sequence[FeaturesUsed]) -> None:
        """Count in the rows of some questions."""
        self.add_columns(len(used), Counter(name for row in used for name in row.missing))

    def add_columns(self, row_count: int, missing: Mapping[str, int]) -> None:
        """Count in so many rows, and in how many of them each feature was missing."""
        self._row_count += row_count
        for name, count in missing.items():
            known = name in self._missing or len(self._missing) < _MOST_FEATURES
            self._missing[name if known else OTHER] += count
