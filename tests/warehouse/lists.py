"""Lists of entities as the logs have them, and as the online store does."""

from __future__ import annotations

from typing import Any, cast

import psycopg

from conductor_features.clients import open_client
from conductor_features.keys import entity_key
from conductor_features.views import TEST_HISTORY, TEST_PATH_AFFINITY
from warehouse.histories import latest_rows

LISTED = (TEST_HISTORY, TEST_PATH_AFFINITY)
Lists = dict[tuple[str, tuple[str, ...]], dict[str, float]]
"""By view and owner, the members and their scores."""


def logged_lists(database_url: str) -> Lists:
    """By the logs."""
    found: Lists = {}
    with psycopg.connect(database_url) as connection:
        for view in LISTED:
            for entity, at in sorted(latest_rows(connection, view)):
                owner = tuple(dict(zip(view.entity, entity, strict=True))[name] for name in view.listed_by)
                found.setdefault((view.key, owner), {})[entity[view.member_position]] = at.timestamp()
    assert len(found) > 5 and max(map(len, found.values())) > 3
    return found


def online_lists(redis_url: str, logged: Lists) -> Lists:
    """What the online store has of those."""
    found: Lists = {}
    with open_client(redis_url, 2.0) as client:
        for view_key, owner in logged:
            scores = cast(Any, client.zrange(entity_key(view_key, owner), 0, -1, withscores=True))
            if scores:
                found[view_key, owner] = {member.decode(): score for member, score in scores}
    return found
