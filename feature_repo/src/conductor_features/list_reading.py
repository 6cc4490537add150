"""Reads lists of entities, each as it is now: what remembers them is ``listings.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from conductor_features.listing import ListCommand, Owner, listing_key
from conductor_features.reader import OnlineReader
from conductor_features.rows import ABSENT, UNFILLED, Missing
from conductor_features.views import View

_NO_LIST = Missing("corrupt: no list")


class ListState(NamedTuple):
    """What tells that a list has changed: it gets members and higher scores, and never loses any."""

    newest: float
    """The highest score."""
    member_count: int
    whole: bool
    """Whether the view's lists are whole, or being filled."""


async def read_state(reader: OnlineReader, view: View, owner: Owner) -> ListState | Missing:
    """A list's state; ABSENT for one that is not there, else as :func:`read_members`."""
    key = listing_key(view, owner)
    newest_first = ListCommand((b"ZRANGE", key, b"0", b"0", b"REV", b"WITHSCORES"))
    (newest, count), whole = await reader.ask_lists(view, [newest_first, ListCommand((b"ZCARD", key))])
    if newest is None or count is None:
        return _NO_LIST
    if not newest:
        return ABSENT if whole else UNFILLED
    return ListState(float(newest[1]), count, whole)


async def read_members(
    reader: OnlineReader, view: View, owners: Sequence[Owner], limit_each: int, since: float = -math.inf
) -> tuple[list[list[bytes] | Missing], bool]:
    """The newest members of owners' lists in one round trip, the newest first, and whether the lists are whole.

    Args:
        reader: asks Redis. A long list takes its connection for itself for a while.
        view: one with lists.
        owners: values of the view's ``listed_by``.
        limit_each: at most so many of each.
        since: epoch seconds; older ones are left out.

    In place of a list that is not there stands UNFILLED where the view is being filled, else an empty one; in place of
    what is no list, a corrupt :class:`Missing`. Raises OnlineStoreUnavailable as the reader does.
    """
    if not owners:
        return [], True
    bounds = b"+inf", repr(since).encode(), b"BYSCORE", b"REV", b"LIMIT", b"0", b"%d" % limit_each
    commands = [ListCommand((b"ZRANGE", listing_key(view, owner), *bounds), limit_each) for owner in owners]
    replies, whole = await reader.ask_lists(view, commands)
    return [_NO_LIST if found is None else found if found or whole else UNFILLED for found in replies], whole


def texts(members: Sequence[bytes]) -> list[str]:
    """Members as text, without those that are none: they are not of our writing, and have no row."""
    try:
        return [member.decode() for member in members]
    except UnicodeDecodeError:
        return [text for member in members if "\ufffd" not in (text := member.decode(errors="replace"))]
