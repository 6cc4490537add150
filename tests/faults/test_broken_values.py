"""F5, and F4 of who writes: what lies in Redis is broken, or Redis takes nothing more, on the whole platform."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_features.keys import entity_key, parse_key
from conductor_features.views import VIEWS
from conductor_server.prediction.columns import Subject, entity
from faults.scene import Reply, Scene, explain, labels, percentile, wrong
from machine import within

MEND_SECONDS = 10.0

Spoil = Callable[[redis.Redis, random.Random, bytes, dict[bytes, bytes]], None]
"""Spoils the value of a key; told what lay under each before."""


def _wrong_type(client: redis.Redis, chance: random.Random, key: bytes, stored: dict[bytes, bytes]) -> None:
    client.delete(key)
    client.rpush(key, stored[key])


def _cut(client: redis.Redis, chance: random.Random, key: bytes, stored: dict[bytes, bytes]) -> None:
    client.set(key, stored[key][: chance.randrange(len(stored[key]))])


def _flipped(client: redis.Redis, chance: random.Random, key: bytes, stored: dict[bytes, bytes]) -> None:
    changed = bytearray(stored[key])
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    client.set(key, bytes(changed))


def _longer(client: redis.Redis, chance: random.Random, key: bytes, stored: dict[bytes, bytes]) -> None:
    client.set(key, stored[key] + chance.randbytes(8))


def _of_another(client: redis.Redis, chance: random.Random, key: bytes, stored: dict[bytes, bytes]) -> None:
    """A whole and sound value of another entity of the same view."""
    view = parse_key(key)[0]
    others = [other for other in stored if other != key and parse_key(other)[0] == view]
    client.set(key, stored[chance.choice(others)])


SPOILING: dict[str, Spoil] = {
    "cut": _cut,
    "flipped": _flipped,
    "longer": _longer,
    "of another entity": _of_another,
    # Last: MGET tells it no otherwise than a key that is not there.
    "wrong type": _wrong_type,
}


async def test_broken_values(scene: Scene, figure, rounds: Iterator[int], seed: int) -> None:
    chance = random.Random(seed)
    asked = spoilt_count = 0
    with redis.Redis.from_url(scene.redis.url) as client:
        by_question = [_keys(scene, number) for number in range(len(scene.questions))]
        keys = sorted({key for of_one in by_question for key in of_one})
        stored = {key: value for key in keys if (value := client.get(key)) is not None}
        # A read that is given up would be a fallback whatever lies in Redis: here all of them must see it.
        patient = scene.serving("--grace", "0", CONDUCTOR_FEATURE_TIMEOUT_SECONDS="2")
        async with patient as server, scene.asking(server.address) as asking:  # type: ignore[attr-defined]
            try:
                for number in rounds:
                    for name, spoil in SPOILING.items():
                        share = 1.0 if name == "wrong type" else chance.choice([0.1, 0.5])
                        spoilt = {key for key in stored if chance.random() < share}
                        for key in spoilt:
                            spoil(client, chance, key, stored)
                        replies = list(await asyncio.gather(*(asking.ask(n) for n in range(len(scene.questions)))))
                        for key in spoilt:
                            _put(client, key, stored[key])
                        asked, spoilt_count = asked + len(replies), spoilt_count + len(spoilt)
                        found = wrong(scene, replies)
                        assert not found, f"{name}: {explain(found)}"
                        for reply in replies:
                            if spoilt & by_question[reply.question]:
                                assert _detected(reply), f"{name}, round {number}: {labels([reply])}"
            finally:
                for key, value in stored.items():
                    _put(client, key, value)
            assert all([(await asking.ask(n)).full for n in range(len(scene.questions))])
    figure(wrong=f"0 of {asked}", values_spoilt=spoilt_count)


def _put(client: redis.Redis, key: bytes, value: bytes) -> None:
    client.delete(key)
    client.set(key, value)


def _detected(reply: Reply) -> bool:
    return reply.answer is not None and not reply.full and bool(reply.answer.missing_features)


def _keys(scene: Scene, number: int) -> set[bytes]:
    """Keys of the rows that the model takes which answers a question."""
    question, expected = scene.questions[number], scene.expected[number]
    owner = question.tenant_id if expected.model_name.endswith(question.tenant_id) else None
    manifest = scene.store.load("build-duration", owner, expected.model_version).manifest
    views = {column.feature.view or column.elapsed_since.view for column in manifest.inputs} - {""}
    subject = Subject.of(question.tenant_id, question.build)
    return {entity_key(key, entity(VIEWS[key], subject)) for key in views}


TAKES_NOTHING = {
    "OOM": (lambda client: client.config_set("maxmemory", 1), lambda client: client.config_set("maxmemory", 0)),
    "READONLY": (lambda client: client.replicaof("127.0.0.1", "1"), lambda client: client.replicaof("NO", "ONE")),
}


@pytest.mark.parametrize("why", TAKES_NOTHING)
async def test_redis_takes_nothing_more(scene: Scene, figure, why: str) -> None:
    """Answers stay full; the tailing writer goes on where it stopped, and loses no row."""
    begin, end = TAKES_NOTHING[why]
    tenant = f"writer-{why.lower()}"
    events = []
    for _, event in scene.history.events[:40]:
        copy = CloudEvent.FromString(event.SerializeToString())
        copy.tenant_id = tenant
        events.append(copy)
    recovery = 0.0
    with redis.Redis.from_url(scene.redis.url) as client:

        async def during(replies: list[Reply]) -> None:
            nonlocal recovery
            begin(client)
            await scene.publish(events)
            await asyncio.sleep(0.3)
            assert not _rows(client, tenant), "the writer can't have written"
            end(client)
            began = time.monotonic()
            async with asyncio.timeout(60):
                await scene.settled()
            recovery = time.monotonic() - began
            assert within(recovery, MEND_SECONDS)
            assert _rows(client, tenant)

        async with scene.asking() as asking:
            replies = await asking.load(40, during)
    found = wrong(scene, replies)
    figure(wrong=f"0 of {len(replies)}", p95=percentile(replies), written_after=recovery)
    assert not found, explain(found)
    assert all(reply.answer for reply in replies), labels(replies)


def _rows(client: redis.Redis, tenant: str) -> list[bytes]:
    return [key for key in client.keys("*") if tenant.encode() in key]
