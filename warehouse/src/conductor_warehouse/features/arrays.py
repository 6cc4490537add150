"""PostgreSQL's arrays in their binary form (``array_send``), read as numpy arrays: no Python object for each value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 20
"""Of a one-dimensional array: dimensions, flags, type, length, first index."""
_POSTGRES_EPOCH_MICROSECONDS = 946_684_800_000_000
FOREVER = np.iinfo(np.int64).max
"""What ``infinity`` becomes."""


def numbers(array: bytes | None, kind: type) -> NDArray[Any]:
    """The values of an array that holds no NULL; none for NULL.

    Args:
        array: in binary form, or NULL.
        kind: float for float8[]; int for timestamptz[], which become microseconds since 1970.
    """
    if array is None or len(array) < _HEADER_BYTES:
        return np.empty(0, np.int64 if kind is int else np.float64)
    form = np.dtype([("length", ">i4"), ("value", ">i8" if kind is int else ">f8")])
    values = np.frombuffer(array, form, offset=_HEADER_BYTES)["value"]
    if kind is float:
        return values.astype(np.float64)
    moments = values.astype(np.int64)
    return np.where(moments == FOREVER, FOREVER, moments + _POSTGRES_EPOCH_MICROSECONDS)
