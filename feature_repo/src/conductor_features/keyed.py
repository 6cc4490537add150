"""Entities of one owner with all that reading their rows needs, made once for many reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conductor_features.listing import Identities, Owner, identities_of, member_keys
from conductor_features.views import View

_BYTES_EACH = 400
"""Of a member in memory besides its text and its key: their headers, its place in lists and the index."""


@dataclass(frozen=True, eq=False)
class Keyed:
    """Members of one list of a view (``View.listed_by``), in an order of their own."""

    members: Sequence[str]
    """Each once."""
    index: Mapping[str, int]
    """Place of each."""
    keys: Sequence[bytes]
    """Of their rows, for ``OnlineReader.read_keyed_block``."""
    identities: Identities
    """Fingerprints of the keys, ``[n, 16]``."""

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def byte_count(self) -> int:
        """What it takes in memory, about."""
        return 2 * sum(map(len, self.keys)) + _BYTES_EACH * len(self.keys)


def keyed(view: View, owner: Owner, members: Sequence[str], known: Keyed | None = None) -> Keyed:
    """Members in the order given, each once; what is ``known`` (of the same view and owner) is not made again."""
    index = {member: at for at, member in enumerate(members)}
    if len(index) != len(members):
        raise ValueError("a member stands twice")
    if known is None or not len(known):
        keys = member_keys(view, owner, members)
        return Keyed(members, index, keys, identities_of(keys))
    places = np.fromiter((known.index.get(member, -1) for member in members), np.intp, len(members))
    fresh = np.flatnonzero(places < 0).tolist()
    made = member_keys(view, owner, [members[at] for at in fresh])
    keys = [known.keys[place] for place in places.tolist()]
    for at, key in zip(fresh, made, strict=True):
        keys[at] = key
    identities = known.identities[places]
    identities[fresh] = identities_of(made)
    return Keyed(members, index, keys, identities)
