"""The online store's lists hold the entities of the logs, whatever became of Redis in between."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import numpy as np
import psycopg
import pytest
import redis

from conductor_features.filling import is_filled, is_listed, position_key
from conductor_features.listing import listing_key
from conductor_features.writer import write_rows
from conductor_warehouse import schema
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.tailing_writer import TailingWriter
from conductor_workbench.embedded import EmbeddedPostgres
from warehouse.catalogue import random_events
from warehouse.histories import START
from warehouse.lists import LISTED, Lists, logged_lists, online_lists


@pytest.fixture(scope="module")
def warehouse_url(embedded_postgres: EmbeddedPostgres) -> str:
    """A warehouse with a history that no test changes."""
    url = embedded_postgres.create_database("of_the_lists")
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        ingest(connection, [event for event in random_events(21, 300) if b"test.completed" in event])
    return url


@pytest.fixture(scope="module")
def logged(warehouse_url: str) -> Lists:
    return logged_lists(warehouse_url)


def positions(client: redis.Redis) -> list[bytes]:
    return [cast(bytes | None, client.get(position_key(view.key))) or b"" for view in LISTED]


def test_what_is_carried_is_listed(warehouse_url: str, redis_url: str, logged: Lists) -> None:
    writer = TailingWriter(warehouse_url, redis_url, batch_size=7)
    writer.catch_up()
    assert online_lists(redis_url, logged) == logged
    with redis.Redis.from_url(redis_url) as client:
        assert all(map(is_listed, positions(client)))
        client.flushall()
    writer.catch_up()
    assert online_lists(redis_url, logged) == logged


def test_a_redis_that_an_older_writer_filled_is_listed(warehouse_url: str, redis_url: str, logged: Lists) -> None:
    writer = TailingWriter(warehouse_url, redis_url)
    writer.catch_up()
    with redis.Redis.from_url(redis_url) as client:
        for view in LISTED:
            for view_key, owner in logged:
                if view_key == view.key:
                    client.delete(listing_key(view, owner))
        for view, position in zip(LISTED, positions(client), strict=True):
            client.set(position_key(view.key), position.replace(b"+lists", b""))
        assert all(map(is_filled, positions(client))) and not any(map(is_listed, positions(client)))
    writer.catch_up()
    assert online_lists(redis_url, logged) == logged
    with redis.Redis.from_url(redis_url) as client:
        assert all(map(is_listed, positions(client)))


def test_a_list_that_somebody_overwrote_is_whole_again(warehouse_url: str, redis_url: str, logged: Lists) -> None:
    writer = TailingWriter(warehouse_url, redis_url, batch_size=3)
    writer.catch_up()
    with redis.Redis.from_url(redis_url) as client:
        for view in LISTED:
            owner = max((of for of in logged if of[0] == view.key), key=lambda of: len(logged[of]))[1]
            member = min(logged[view.key, owner])
            client.set(listing_key(view, owner), b"not a list")
            parts = dict(zip(view.listed_by, owner, strict=True))
            row = (
                [parts.get(name, member) for name in view.entity],
                START - timedelta(days=9),
                np.zeros(len(view.fields)),
            )
            write_rows(client, view, [row])
            assert client.zcard(listing_key(view, owner)) == 1 < len(logged[view.key, owner])
        assert positions(client) == [b"", b""]
    writer.catch_up()
    assert online_lists(redis_url, logged) == logged
    with redis.Redis.from_url(redis_url) as client:
        assert all(map(is_listed, positions(client)))
