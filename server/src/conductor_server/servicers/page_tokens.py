"""Tokens of pages: where the next page of a list begins, bound to the list that they were given for.

A token is no secret and no permission: the tenant is the credentials', whatever a token says. Its checksum keeps what
was cut, mistyped or taken from another list from being answered with a page that nobody asked for.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from hashlib import blake2b

from conductor_rpc.exceptions import InvalidRequest, Violation

_DIGEST_BYTES = 12


def page_token(asked: Sequence[object], after: str) -> str:
    """The token of the page after ``after`` of the list that was asked for; empty where there is none."""
    if not after:
        return ""
    place = after.encode()
    return base64.urlsafe_b64encode(_digest(asked, place) + place).rstrip(b"=").decode()


def page_after(asked: Sequence[object], token: str) -> str:
    """What a page begins after; empty for the first one.

    Raises:
        InvalidRequest: the token was not given for this list.
    """
    if not token:
        return ""
    try:
        content = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        place = content[_DIGEST_BYTES:]
        if place and content[:_DIGEST_BYTES] == _digest(asked, place):
            return place.decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest([Violation("page_token", "must be the next_page_token of an answer to the same question")])


def _digest(asked: Sequence[object], place: bytes) -> bytes:
    return blake2b(json.dumps(asked).encode() + b"\0" + place, digest_size=_DIGEST_BYTES).digest()
