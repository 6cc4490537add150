"""What is asked at the same moment is answered together, and nobody notices but by the time it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest

from conductor_server.prediction.coalescing import Coalescer
from server.harness import QUEUED, expected_median, publish, request, seconds, serving, write_features

TENANTS = ("acme", "acme2", "other")
BIASES = {"acme": 10.0, "acme2": 1000.0, "other": 10.0}
"""Two tenants have models of their own, the third is answered by the global one, which is the first one's."""


async def test_every_answer_is_the_askers_own(redis_url, store):
    """Callers of several tenants, with rows, without, and with old ones, all at once: each as if it were alone."""
    publish(store, BIASES["other"])
    publish(store, BIASES["acme2"], tenant_id="acme2")
    for number, tenant in enumerate(TENANTS):
        for repository in range(8):
            write_features(redis_url, tenant, repository=f"r{repository}", recent=1000.0 * number + 100.0 * repository)
    random = np.random.default_rng(5)

    async def one(server):
        number, repository, lines = int(random.integers(3)), int(random.integers(10)), int(random.integers(1, 50))
        message = request(TENANTS[number], repository=f"r{repository}", lines=lines)
        message.contribution_count = int(random.integers(0, 4))
        past = random.random() < 0.2
        if past:  # nothing of what is known now was known then
            message.build.queued_time.FromDatetime(QUEUED - timedelta(days=2))
        answer = await server.predict(message)
        if past:
            expected = expected_median(BIASES[TENANTS[number]], recent=0, lines=lines, since=0, running=0)
        elif repository < 8:
            recent = 1000.0 * number + 100.0 * repository
            expected = expected_median(BIASES[TENANTS[number]], recent=recent, lines=lines)
        else:  # there are no rows of this one
            expected = expected_median(BIASES[TENANTS[number]], recent=0, lines=lines, since=0)
        assert seconds(answer.duration) == pytest.approx(expected, rel=1e-6)
        assert bool(answer.provenance.missing_features) == (past or repository >= 8)
        effects = [abs(seconds(c.effect_duration)) for c in answer.contributions]
        assert len(effects) <= message.contribution_count
        assert effects == sorted(effects, reverse=True)
        for contribution in answer.contributions:
            if contribution.feature == "lines":
                assert contribution.value == lines
                assert seconds(contribution.effect_duration) == pytest.approx(2 * (lines - 10), rel=1e-4, abs=1e-3)

    async with serving(redis_url, store) as server:
        await server.eventually(lambda answer: answer.provenance.model_name.endswith("acme2"), request("acme2"))
        for _ in range(6):
            await asyncio.gather(*(one(server) for _ in range(100)))


async def test_what_is_asked_in_one_turn_is_answered_at_once():
    batches: list[list[int]] = []

    async def double(numbers: Sequence[int]) -> list[int]:
        batches.append(list(numbers))
        await asyncio.sleep(0)
        return [2 * number for number in numbers]

    together = Coalescer(double)
    assert await asyncio.gather(*(together.ask(number) for number in range(10))) == [*range(0, 20, 2)]
    assert await together.ask(7) == 14
    assert batches == [[*range(10)], [7]]
    assert len(await asyncio.gather(*(together.ask(number) for number in range(150)))) == 150
    assert max(map(len, batches)) <= 64


async def test_what_is_asked_meanwhile_is_the_next_batch():
    batches: list[list[int]] = []
    first, second, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(numbers: Sequence[int]) -> list[int]:
        batches.append(list(numbers))
        (second if first.is_set() else first).set()
        await go.wait()
        return list(numbers)

    together = Coalescer(slow)
    asking = [asyncio.ensure_future(together.ask(1))]
    await first.wait()
    asking += [asyncio.ensure_future(together.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    assert batches == [[1]]
    await second.wait()  # the first one hangs: they are not held up by it for ever
    assert batches == [[1], [2, 3]]
    asking.append(asyncio.ensure_future(together.ask(4)))
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*asking) == [1, 2, 3, 4]
    assert batches == [[1], [2, 3], [4]]


async def test_one_who_leaves_takes_nobody_along():
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(numbers: Sequence[int]) -> list[int]:
        begun.set()
        await go.wait()
        return list(numbers)

    together = Coalescer(slow)
    asking = [asyncio.ensure_future(together.ask(number)) for number in range(4)]
    await begun.wait()
    asking[1].cancel()
    go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [answers[0], *answers[2:]] == [0, 2, 3]
    assert isinstance(answers[1], asyncio.CancelledError)


async def test_one_bad_question_costs_the_others_nothing():
    async def picky(numbers: Sequence[int]) -> list[int]:
        if 3 in numbers:
            raise ValueError("three")
        return list(numbers)

    answers = await asyncio.gather(*map(Coalescer(picky).ask, range(6)), return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 1, 2, 4, 5]
    assert str(answers[3]) == "three"
