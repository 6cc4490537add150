"""What the online store answers: a row, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True, eq=False)
class FeatureRow:
    """Feature values of one entity as of a moment. Not to be changed.

    It is not frozen: a frozen one takes three times as long to make, and a batch makes thousands.
    """

    event_time_us: int
    """Moment that the values are as of, in microseconds since the epoch."""
    written_time_us: int
    """When they were written to the online store, in microseconds since the epoch."""
    values: NDArray[np.float64]
    """In the order of the view's fields; NaN is missing. Read-only when decoded."""

    @property
    def event_time(self) -> datetime:
        """Moment that the values are as of, in UTC."""
        return from_microseconds(self.event_time_us)


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no usable row."""

    reason: str
    """``absent``, ``not filled in yet`` or ``corrupt: …``."""

    @property
    def corrupt(self) -> bool:
        """Whether a value was there and was refused."""
        return self.reason.startswith("corrupt")


ABSENT = Missing("absent")
"""There is no such row."""
UNFILLED = Missing("not filled in yet")
"""The row is not there, and nor may others be: the online store lost its data, or never had this view's."""
LOADING = Missing("loading")
"""It may be there, and comes: ask again."""


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exactly; raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The moment in UTC, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)
