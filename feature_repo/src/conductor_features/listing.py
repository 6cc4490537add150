"""Which entities a view has: a sorted set in Redis for each owner (``View.listed_by``), scored by event time.

A list's key is that of an entity with fewer join keys, so it is no row's key and falls under the same tenant's ACL. Its
members are the remaining join key in UTF-8; the score is the event time of the entity's latest row, in epoch seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conductor_features.keys import IDENTITY_BYTES, entity_key, key_part
from conductor_features.views import View

Owner = tuple[str, ...]
"""Values of a view's ``listed_by``, in that order."""
Identities = NDArray[np.uint8]
"""Fingerprints of keys, shape ``[n, 16]``."""


class ListCommand(NamedTuple):
    """A question about one list."""

    arguments: tuple[bytes, ...]
    """As Redis takes them."""
    size: int = 1
    """As many values its answer has at most."""


def listing_key(view: View, owner: Owner) -> bytes:
    """Key of a list. Raises ValueError for a view without lists and for an owner that is none of the view's."""
    if not view.listed_by or len(owner) != len(view.listed_by):
        raise ValueError(f"{view.key} is listed by ({', '.join(view.listed_by)}), not by {len(owner)} parts")
    return entity_key(view.key, owner)


def member_keys(view: View, owner: Owner, members: Sequence[str]) -> list[bytes]:
    """Keys of the rows of an owner's members, as :func:`~conductor_features.keys.entity_key` makes them."""
    listing_key(view, owner)  # or it raises
    by_name = dict(zip(view.listed_by, owner, strict=True))
    at = view.member_position
    before = entity_key(view.key, [by_name[name] for name in view.entity[:at]])
    behind = b"".join([key_part(by_name[name]) for name in view.entity[at + 1 :]])
    return [b"%b%d:%b%b" % (before, len(member), member, behind) for member in map(str.encode, members)]


def identities_of(keys: Sequence[bytes]) -> Identities:
    """Fingerprints of many keys: not remembered by key, as whoever has so many keeps them himself."""
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(key, digest_size=IDENTITY_BYTES).digest() for key in keys])
    return np.frombuffer(digests, np.uint8).reshape(-1, IDENTITY_BYTES)
