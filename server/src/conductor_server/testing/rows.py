"""Feature rows of many tests, in columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor_features.views import View

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Rows of one view, one for each test."""

    view: View
    values: Array
    """``[n, fields]``; NaN where no row may be used."""
    event_time_us: NDArray[np.int64]
    """``[n]``; 0 where no row may be used."""
    usable: Mask
    """``[n]``: there is a row, and it may be used."""
    unreadable: Mask
    """``[n]``: there may be one, and it could not be read, or tells of later than the question's time."""

    def __len__(self) -> int:
        return len(self.usable)

    def field(self, name: str) -> Array:
        """A field of every test."""
        return self.values[:, self.view.field_index[name]]

    def age_us(self, moment_us: int) -> NDArray[np.int64]:
        """How old each row is; 0 where none may be used."""
        return np.where(self.usable, moment_us - self.event_time_us, 0)

    @property
    def oldest_us(self) -> int | None:
        """Event time of the oldest that may be used; None for none."""
        return int(self.event_time_us[self.usable].min()) if self.usable.any() else None

    def known_at(self, moment_us: int, *, past_only: bool, of_any_age: bool = False) -> Rows:
        """The rows that may be used for a question.

        Args:
            moment_us: the question's time, in microseconds since the epoch.
            past_only: rows of that time or later may not be used.
            of_any_age: nor are rows too old that are older than their view's maximum age.
        """
        age_us = moment_us - self.event_time_us
        later = self.usable & (age_us <= 0) if past_only else np.zeros(len(self), bool)
        longest_us = np.inf if of_any_age else self.view.maximum_age.total_seconds() * 1e6
        gone = later | (self.usable & (age_us > longest_us))
        if not gone.any():
            return self
        return Rows(
            self.view,
            np.where(gone[:, None], np.nan, self.values),
            np.where(gone, 0, self.event_time_us),
            self.usable & ~gone,
            self.unreadable | later,
        )
