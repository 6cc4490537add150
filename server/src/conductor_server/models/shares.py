"""Which entities a canary or challenger answers: always the same ones, whoever asks where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_RANGE = float(1 << 64)


def place_of(predictor: str, tenant_id: str, entity: Sequence[str]) -> float:
    """Where an entity stands in [0, 1): a hash of all of its names, equal in every process and release."""
    # Each name with its length, so that ("a", "bc") is not ("ab", "c").
    parts = [part.encode() for part in (predictor, tenant_id, *entity)]
    named = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "big") / _RANGE
