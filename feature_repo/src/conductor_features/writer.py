"""Writes feature rows to the online store. Feast's store and the warehouse's tailing writer share this path."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike
from redis.exceptions import NoScriptError

from conductor_features.clients import Client, mget, position_keys
from conductor_features.codec import EVENT_TIME_OFFSET, CorruptValue, decode, encode, value_bytes
from conductor_features.keys import entity_key
from conductor_features.listing import Owner, listing_key
from conductor_features.rows import FeatureRow, to_microseconds
from conductor_features.views import View

WriteRow = tuple[Sequence[str], datetime, ArrayLike]
"""Entity, event time (with a zone) and values in the order of the view's fields; NaN or None is missing."""

_BATCH = 2_000
"""Rows per round trip."""

# Redis runs a script as one step, so two writers can't overtake each other between look and write. It reads the eight
# bytes of the stored event time and not the value. Doubles hold microseconds exactly until the year 2255.
# KEYS[1] key; ARGV: value, its event time, expected size. Another size is another format or a cut value: overwritten.
_SET_IF_NEWER = f"""
if redis.call('STRLEN', KEYS[1]) == tonumber(ARGV[3]) then
  local stored = redis.call('GETRANGE', KEYS[1], {EVENT_TIME_OFFSET}, {EVENT_TIME_OFFSET + 7})
  if struct.unpack('<i8', stored) > tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

# KEYS[1] key; ARGV: the corrupt value that was seen, value to put in its place.
_REPLACE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end
return 0
"""

# KEYS[1] list; ARGV: score, member, score, member, …. Returns 1 where something else stood in the list's place.
_ADD_TO_LIST = """
local kind = redis.call('TYPE', KEYS[1]).ok
local broken = kind ~= 'zset' and kind ~= 'none'
if broken then redis.call('DEL', KEYS[1]) end
redis.call('ZADD', KEYS[1], 'GT', unpack(ARGV))
return broken and 1 or 0
"""

_LIST_MEMBERS = 1_000
"""Added by one call: Redis serves others in between, and Lua takes no more than some thousands of arguments."""
_Call = tuple[Any, ...]
"""A script, its key and its arguments."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the rows."""

    written: int
    superseded: int
    """Not written, because a row of a later event time is stored or stood in the same call."""


def write_rows(client: Client, view: View, rows: Iterable[WriteRow]) -> WriteResult:
    """Write rows of ``view``; each entity keeps the row of the latest event time, of equal ones the last.

    Where the view has lists (``listing.py``), the entity is in its owner's afterwards. Rows never expire: age is judged
    by the reader. Safe to repeat, and from several writers at once. Each key is written on its own, so a failure midway
    leaves some rows written and none half-written. Raises ValueError for a row that is not of the view, before anything
    of its batch is written, and one of ``clients.FAILURES`` when Redis fails.
    """
    written = superseded = 0
    source = iter(rows)
    while batch := list(islice(source, _BATCH)):
        latest: dict[bytes, FeatureRow] = {}
        lists: dict[Owner, dict[str, int]] = {}
        for entity, key, row in _encodable(view, batch):
            known = latest.get(key)
            if known is None or row.event_time_us >= known.event_time_us:
                latest[key] = row
                if view.listed_by:
                    owner = tuple([entity[at] for at in view.owner_positions])
                    lists.setdefault(owner, {})[entity[view.member_position]] = row.event_time_us
        count = _write(client, view, latest, lists)
        written += count
        superseded += len(batch) - count
    return WriteResult(written, superseded)


def _encodable(view: View, rows: Iterable[WriteRow]) -> Iterator[tuple[Sequence[str], bytes, FeatureRow]]:
    now = time.time_ns() // 1000
    join_keys, fields = len(view.entity), len(view.fields)
    for entity, event_time, values in rows:
        array = np.asarray(values, dtype=np.float64)  # None becomes NaN
        if len(entity) != join_keys or array.shape != (fields,):
            raise ValueError(
                f"{view.key}: {len(entity)} join keys and {array.shape} values instead of {join_keys} and ({fields},)"
            )
        yield entity, entity_key(view.key, entity), FeatureRow(to_microseconds(event_time), now, array)


def _write(
    client: Client, view: View, latest: dict[bytes, FeatureRow], lists: Mapping[Owner, Mapping[str, int]]
) -> int:
    """Number of rows written. One EVALSHA per key: in a Redis Cluster each finds its own node."""
    values = {key: encode(key, row) for key, row in latest.items()}
    size = value_bytes(len(view.fields))
    rows = [(_SET_IF_NEWER, key, values[key], row.event_time_us, size) for key, row in latest.items()]
    listing = list(_listing(view, lists))
    done = _evaluate(client, rows + listing)
    if any(done[len(rows) :]):
        # What else the list held is gone. Without its positions the view counts as not filled, and whoever tails the
        # log writes all of it anew.
        for key in position_keys(client, view.key):
            client.delete(key)
    del done[len(rows) :]
    refused = [key for key, success in zip(latest, done, strict=True) if not success]
    return len(latest) - len(refused) + _heal(client, view, {key: values[key] for key in refused})


def _listing(view: View, lists: Mapping[Owner, Mapping[str, int]]) -> Iterator[_Call]:
    """Calls that add members to lists."""
    for owner, members in lists.items():
        key = listing_key(view, owner)
        scored = iter(members.items())
        while some := list(islice(scored, _LIST_MEMBERS)):
            yield _ADD_TO_LIST, key, *chain.from_iterable([(at / 1e6, member.encode()) for member, at in some])


def _heal(client: Client, view: View, values: dict[bytes, bytes]) -> int:
    """Replace stored values that are corrupt: a flipped bit may have made their event time the latest of all."""
    if not values:
        return 0
    stored = mget(client, list(values))
    corrupt = [
        (_REPLACE, key, old, values[key])
        for key, old in zip(values, stored, strict=True)
        if old is not None and _is_corrupt(key, old, view)
    ]
    return sum(_evaluate(client, corrupt)) if corrupt else 0


def _is_corrupt(key: bytes, value: bytes, view: View) -> bool:
    try:
        decode(key, value, len(view.fields))
    except CorruptValue:
        return True
    return False


def _evaluate(client: Client, calls: Sequence[_Call]) -> list[int]:
    """Run scripts in one round trip; loads them first where Redis does not know them."""
    # What Redis calls them.
    digests = {script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script, *_ in calls}

    def run() -> list[int]:
        with client.pipeline(transaction=False) as pipeline:
            for script, *call in calls:
                # redis-py's pipeline of a cluster has no evalsha(), as it can't know that every node has the script;
                # below they all get it.
                pipeline.execute_command("EVALSHA", digests[script], 1, *call)
            return cast(list[int], pipeline.execute())

    try:
        return run()
    except NoScriptError:  # first use, or Redis was restarted; repeating is harmless
        for script in digests:
            client.script_load(script)
        return run()
