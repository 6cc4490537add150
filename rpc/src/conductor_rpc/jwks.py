"""The keys that tokens are verified with: fetched off the event loop, cached, and refused when too old."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jwt

from conductor_client.small_file import read_small
from conductor_rpc.downloads import download

_LOG = logging.getLogger(__name__)
_MAX_BYTES = 1 << 20
_FETCH_SECONDS = 3.0
_RETRY_SECONDS = 1.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class KeySet:
    """Keys by id.

    A fetch runs in a thread. A call waits for it only when its key is unknown; stale keys are renewed beside the
    calls. Keys that could not be renewed for ``maximum_age_seconds`` are no longer used: no key, no access.
    """

    def __init__(self, fetch: Callable[[], bytes], refresh_seconds: float, maximum_age_seconds: float) -> None:
        self._fetch = fetch
        self._refresh_seconds, self._maximum_age_seconds = refresh_seconds, maximum_age_seconds
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_time = self._tried_time = float("-inf")
        self._content = b""
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of that id, or the only key where there is no id; None when unknown or too old to be used.

        It is the same object for as long as the set does not change.
        """
        key = self._usable(key_id)
        now = time.monotonic()
        if key is not None:
            if now - self._fetched_time > self._refresh_seconds:
                self._refresh(now)
            return key
        # An unknown id may be a new key, so ask; but not more often than once a second, whatever callers send.
        refreshing = self._refresh(now)
        if refreshing is None:
            return None
        await asyncio.shield(refreshing)
        return self._usable(key_id)

    def age_seconds(self) -> float | None:
        """Since the keys were fetched; None before they were."""
        age = time.monotonic() - self._fetched_time
        return age if math.isfinite(age) else None

    async def close(self) -> None:
        """Forget a fetch that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _usable(self, key_id: str | None) -> jwt.PyJWK | None:
        if time.monotonic() - self._fetched_time > self._maximum_age_seconds:
            return None
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _refresh(self, now: float) -> asyncio.Task[None] | None:
        if self._refreshing is not None and not self._refreshing.done():
            return self._refreshing
        if now - self._tried_time < min(_RETRY_SECONDS, self._refresh_seconds):
            return None
        self._tried_time = now
        self._refreshing = asyncio.get_running_loop().create_task(self._renew())
        return self._refreshing

    async def _renew(self) -> None:
        try:
            content = await asyncio.to_thread(self._fetch)
            if content != self._content:
                self._keys = parse(content)
                self._content = content
            self._fetched_time = time.monotonic()
        except Exception as error:  # any failure has the same outcome: the keys at hand stay, for as long as they may
            _LOG.warning("the token keys can't be read: %s", type(error).__name__)


def parse(content: bytes) -> dict[str | None, jwt.PyJWK]:
    """The keys of a set that may verify signatures, by id.

    A shared secret is left out: anyone who can read the set could sign with it. So are keys with the same id: which of
    them would be meant?

    Raises:
        ValueError, jwt.PyJWTError: it is no set of keys.
    """
    keys = [
        k for k in jwt.PyJWKSet.from_json(content.decode()).keys if k.key_type != "oct" and k.public_key_use != "enc"
    ]
    counts = Counter(k.key_id for k in keys)
    if twice := [key_id for key_id, count in counts.items() if count > 1]:
        _LOG.error("the token keys hold %d ids twice; those keys are not used", len(twice))
    return {k.key_id: k for k in keys if counts[k.key_id] == 1}


def key_set(location: str, refresh_seconds: float, maximum_age_seconds: float) -> KeySet:
    """The key set at a file or an https:// address (http:// on this machine only).

    Raises:
        ValueError: the address is neither.
    """
    address = urllib.parse.urlsplit(location)
    if address.scheme in {"http", "https"}:
        if address.scheme == "http" and address.hostname not in _LOOPBACK:
            raise ValueError("a key set must come over https://")
        return KeySet(lambda: download(location, _MAX_BYTES, _FETCH_SECONDS), refresh_seconds, maximum_age_seconds)
    file = Path(location.removeprefix("file://"))
    return KeySet(lambda: read_small(file, _MAX_BYTES), min(1.0, refresh_seconds), maximum_age_seconds)
