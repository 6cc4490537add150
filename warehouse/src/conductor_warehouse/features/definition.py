"""What a feature definition is: one way to compute a view's rows as of moments, for events, backfills and checks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from conductor_features.views import View
from conductor_warehouse.features.moments import Moments

Rows = NDArray[np.float64]
"""Feature rows, shape (moments, fields of the view); NaN is missing."""


class Definition(Protocol):
    """The one definition of a view.

    A row as of T is a function of the facts up to and including T, and of nothing else: not of the order in which they
    arrived, nor of the other moments that are computed with it.
    """

    @property
    def view(self) -> View:
        """What is computed."""
        ...

    @property
    def reach(self) -> timedelta | None:
        """How far ahead of itself a fact can change rows; None: any later row may change."""
        ...

    @property
    def seeded(self) -> bool:
        """Whether an entity's row can be computed from its row before and the facts since."""
        ...

    def compute(self, connection: Connection[Any], moments: Moments, seeds: Seeds | None = None) -> Rows:
        """Rows as of each moment, set-based: a fixed number of statements whatever the number of moments.

        Args:
            connection: sees the facts.
            moments: where rows are wanted.
            seeds: for a seeded definition, each entity's latest row before its first moment.
                None: from the facts alone.
        """
        ...


class Seeds:
    """For each entity the row to go on from, and the moment that it is of."""

    def __init__(self, at: NDArray[np.int64], rows: Rows) -> None:
        self.at = at
        """Microseconds since 1970; long ago where the entity has no row. Shape (entities,)."""
        self.rows = rows
        """Shape (entities, fields); NaN where the entity has no row."""

    def take(self, which: NDArray[np.int64]) -> Seeds:
        """Those of some of the entities."""
        return Seeds(self.at[which], self.rows[which])
