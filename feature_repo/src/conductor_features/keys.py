"""Keys of the online store: who a value belongs to, said unambiguously and with the tenant first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

PREFIX = b"cf1:"
"""Begins every key: the layout's version. An ACL for one tenant is ``~cf1:<length>:<tenant>*``."""
IDENTITY_BYTES = 16


REMEMBERED = 1 << 14
"""Keys and fingerprints that a process keeps: the same pipelines are asked for again and again. Some 5 MB."""


def entity_key(view_key: str, entity: Sequence[str]) -> bytes:
    """Key of an entity's row: the prefix, then tenant, view and the other join keys, each as ``<bytes>:<utf-8>``.

    Injective: two different (view, entity) never share a key, whatever characters they hold.
    Raises ValueError for an entity without a tenant and for text that UTF-8 can't hold.
    """
    if not entity or not entity[0]:
        raise ValueError("an entity's first join key is its tenant, and may not be empty")
    return b"".join([_head(entity[0], view_key), *map(key_part, entity[1:])])


def key_part(text: str) -> bytes:
    """One part of a key; no two texts, one after the other or alone, give the same bytes."""
    encoded = text.encode()
    return b"%d:%b" % (len(encoded), encoded)


@lru_cache(maxsize=1024)
def _head(tenant: str, view_key: str) -> bytes:
    return PREFIX + key_part(tenant) + key_part(view_key)


def parse_key(key: bytes) -> tuple[str, tuple[str, ...]]:
    """View key and entity of a key; raises ValueError for bytes that :func:`entity_key` never makes."""
    if not key.startswith(PREFIX):
        raise ValueError("not a key of the online store")
    parts: list[str] = []
    at = len(PREFIX)
    while at < len(key):
        colon = key.index(b":", at)
        size = int(key[at:colon])
        at = colon + 1 + size
        parts.append(key[colon + 1 : at].decode())
    if len(parts) < 2:
        raise ValueError("a key of the online store holds a tenant and a view at least")
    view_key, entity = parts[1], (parts[0], *parts[2:])
    if entity_key(view_key, entity) != key:  # "04:acme", a length beyond the end, …
        raise ValueError("not a key of the online store")
    return view_key, entity


@lru_cache(maxsize=REMEMBERED)
def identity(key: bytes) -> bytes:
    """Fingerprint of a key that its value carries, so that a value under another key is refused."""
    return hashlib.blake2b(key, digest_size=IDENTITY_BYTES).digest()
