"""Rows of thousands of entities of one view, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class RowState(IntEnum):
    """What was found of an entity."""

    OK = 0
    ABSENT = 1
    """There is no row."""
    UNFILLED = 2
    """There is no row, and nor may others be: the online store is being filled."""
    CORRUPT = 3
    """A value is there, and may not be used."""


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows in the order of the keys that were asked for."""

    values: NDArray[np.float64]
    """``[n, fields]``; NaN where there is no usable row."""
    event_time_us: NDArray[np.int64]
    """``[n]``, microseconds since the epoch; 0 where there is no usable row."""
    state: NDArray[np.uint8]
    """``[n]``, a :class:`RowState` each."""

    @property
    def ok(self) -> NDArray[np.bool_]:
        """``[n]``: which rows are there."""
        ok: NDArray[np.bool_] = self.state == RowState.OK
        return ok

    def __len__(self) -> int:
        return len(self.state)
