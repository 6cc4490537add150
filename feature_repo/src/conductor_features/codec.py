"""The packed value: a fixed header, then the view's fields as float64, all little-endian.

======  =====  ==========================================================
offset  bytes  content
======  =====  ==========================================================
0       4      CRC-32 of everything after it
4       1      format version
5       1      zero
6       2      number of fields
8       16     identity: fingerprint of the key that the value was made for
24      8      event time, microseconds since the epoch, signed
32      8      write time, microseconds since the epoch, signed
40      8·n    the fields
======  =====  ==========================================================

The checksum is for decay and half-written values, not against forgers: who may write to Redis may write features.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from conductor_features.keys import IDENTITY_BYTES, REMEMBERED, identity
from conductor_features.rows import FeatureRow

FORMAT_VERSION = 1
HEADER_BYTES = 40
EVENT_TIME_OFFSET = 24
"""Where the write script finds the event time."""

_CHECKSUM = struct.Struct("<I")
_BODY = struct.Struct(f"<BBH{IDENTITY_BYTES}sqq")
_FIELD_BYTES = 8
_FLOAT64 = np.dtype("<f8")


class CorruptValue(ValueError):
    """A stored value that may not be used; the message is the reason."""


def encode(key: bytes, row: FeatureRow) -> bytes:
    """Pack ``row`` for ``key``. Keeps every bit of the values, payloads of NaN included."""
    values = np.ascontiguousarray(row.values, dtype=_FLOAT64)
    if values.ndim != 1:
        raise ValueError(f"a row's values have one dimension, not {values.ndim}")
    header = _BODY.pack(FORMAT_VERSION, 0, values.size, identity(key), row.event_time_us, row.written_time_us)
    body = header + values.tobytes()
    return _CHECKSUM.pack(zlib.crc32(body)) + body


def decode(key: bytes, value: bytes, field_count: int) -> FeatureRow:
    """Unpack the value stored under ``key``.

    Raises :class:`CorruptValue` when it is cut, changed, of another format, of another key or of another view.
    """
    if len(value) < HEADER_BYTES:
        raise CorruptValue(f"{len(value)} bytes are too few")
    if zlib.crc32(value[_CHECKSUM.size :]) != _CHECKSUM.unpack_from(value)[0]:
        raise CorruptValue("checksum differs")
    version, _, stored_count, stored_identity, event_time_us, written_time_us = _BODY.unpack_from(value, 4)
    if version != FORMAT_VERSION:
        raise CorruptValue(f"format version {version} instead of {FORMAT_VERSION}")
    if stored_identity != identity(key):
        raise CorruptValue("belongs to another key")
    if stored_count != field_count or len(value) != value_bytes(field_count):
        raise CorruptValue(f"{stored_count} fields instead of {field_count}")
    return FeatureRow(event_time_us, written_time_us, np.frombuffer(value, _FLOAT64, offset=HEADER_BYTES))


def is_intact(key: bytes, value: bytes, field_count: int) -> bool:
    """Whether a value is what :func:`encode` makes for ``key``; of one that is not, :func:`decode` tells why."""
    return (
        len(value) == value_bytes(field_count)
        and value[_CHECKSUM.size : EVENT_TIME_OFFSET] == _own_header(key, field_count)
        and zlib.crc32(value[_CHECKSUM.size :]) == _CHECKSUM.unpack_from(value)[0]
    )


@lru_cache(maxsize=REMEMBERED)
def _own_header(key: bytes, field_count: int) -> bytes:
    """What stands between the checksum and the times in every value of a key."""
    return _BODY.pack(FORMAT_VERSION, 0, field_count, identity(key), 0, 0)[: EVENT_TIME_OFFSET - _CHECKSUM.size]


def decode_block(
    keys: Sequence[bytes], stored: Sequence[bytes | None], field_count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Unpack many values of one view at once, each checked as :func:`decode` does.

    Returns values ``[n, field_count]`` (NaN where there is none), event times in microseconds ``[n]`` (0 where there
    is none), and ``ok [n]``. ``stored[i]`` is None where the store holds nothing.
    """
    return decode_keyed_block(_identities(keys), stored, field_count)


def decode_keyed_block(
    identities: NDArray[np.uint8], stored: Sequence[bytes | None], field_count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """As :func:`decode_block`, for keys whose fingerprints ``[n, 16]`` are at hand."""
    block, ok = _checked_block(identities, stored, field_count)
    values = np.where(ok[:, None], block["values"], np.nan)
    return values, np.where(ok, block["event_time"], 0), ok


def decode_rows(
    keys: Sequence[bytes], stored: Sequence[bytes | None], field_count: int
) -> list[FeatureRow | CorruptValue | None]:
    """Unpack many values of one view as :func:`decode` does; what it would raise stands in the value's place."""
    block, ok = _checked_block(_identities(keys), stored, field_count)
    rows: list[FeatureRow | CorruptValue | None] = list(
        map(FeatureRow, block["event_time"].tolist(), block["written_time"].tolist(), block["values"])
    )
    for at in np.flatnonzero(~ok).tolist():
        value = stored[at]
        rows[at] = None if value is None else decode_or_reason(keys[at], value, field_count)
    return rows


def decode_or_reason(key: bytes, value: bytes, field_count: int) -> FeatureRow | CorruptValue:
    """As :func:`decode`, but gives the error instead of raising it."""
    try:
        return decode(key, value, field_count)
    except CorruptValue as error:
        return error


def _identities(keys: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join([identity(key) for key in keys]), np.uint8).reshape(-1, IDENTITY_BYTES)


def _checked_block(
    identities: NDArray[np.uint8], stored: Sequence[bytes | None], field_count: int
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Values as records ``[n]``, and which of them may be used ``[n]``."""
    size = value_bytes(field_count)
    filler = bytes(size)
    block = np.frombuffer(
        b"".join([value if value is not None and len(value) == size else filler for value in stored]),
        dtype=_block_dtype(field_count),
    )
    crc32, skip = zlib.crc32, _CHECKSUM.size
    checksums = np.array([0 if value is None else crc32(value[skip:]) for value in stored], dtype=np.uint32)
    ok: NDArray[np.bool_] = (
        (block["version"] == FORMAT_VERSION)  # a filler has version 0
        & (block["checksum"] == checksums)
        & (block["field_count"] == field_count)
        & (block["identity"] == identities.view("<u8")).all(axis=1)
    )
    return block, ok


@lru_cache(maxsize=64)
def _block_dtype(field_count: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("checksum", "<u4"),
            ("version", "u1"),
            ("zero", "u1"),
            ("field_count", "<u2"),
            ("identity", "<u8", (IDENTITY_BYTES // 8,)),
            ("event_time", "<i8"),
            ("written_time", "<i8"),
            ("values", "<f8", (field_count,)),
        ]
    )


def value_bytes(field_count: int) -> int:
    """Size of a packed value."""
    return HEADER_BYTES + _FIELD_BYTES * field_count
