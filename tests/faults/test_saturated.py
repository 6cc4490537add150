"""F9, F10, F11: models roll, workers are stopped and killed, calls go on.

At seven tenths of what the server can take in the long form, else slowly.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from conductor_workbench.faults.stand import Stand
from faults.scene import LATENCY_SECONDS
from machine import within

SHARE = 0.7
SHORT_FORM_RATE = 40.0
"""Calls a second where nobody waits for a measurement, and others may be at work on the machine."""
PATIENCE_SECONDS = 30.0
"""Deadline of calls."""
LONGEST_SECONDS = 60.0
"""For a worker to end, and for another to stand in its place."""
REPLACED_SECONDS = 2.0
ANSWERS = {"MODEL", "MODEL_DEGRADED", "HISTORY"}
"""A read of features that takes too long on a busy machine is a fallback, and labelled."""


@pytest.fixture
async def rate(stand: Stand, figure, long_form: bool) -> float:
    """In the long form seven tenths of the calls a second that are answered when as many as can be are asked."""
    if not long_form:
        return SHORT_FORM_RATE
    saturated = await stand.ask(in_flight=32, seconds=3.0, errors=("RESOURCE_EXHAUSTED",))
    assert not saturated.wrong_count, saturated.wrong
    figure(saturation_per_s=saturated.calls / 3.0)
    return SHARE * saturated.calls / 3.0


async def test_models_published_and_rolled_back(
    stand: Stand, rate: float, figure, rounds: Iterator[int], seed: int
) -> None:
    chance = random.Random(seed)
    owners, rolled = list(stand.versions), 0
    async with stand.asking(rate_per_s=rate, seed=seed, timeout_seconds=PATIENCE_SECONDS) as replies:
        for _ in rounds:
            for _ in range(15):
                owner = chance.choice(owners)
                work = (
                    (stand.publish, owner, chance.randrange(100)) if chance.random() < 0.7 else (stand.roll_back, owner)
                )
                await asyncio.to_thread(*work)
                rolled += 1
                await asyncio.sleep(0.1)
    for owner in owners:
        stand.publish(owner, 0)
    figure(wrong=f"0 of {len(replies)}", rolled=rolled, p95=replies.percentile(0.95), **replies.counts)
    assert not replies.wrong_count, replies.wrong
    assert set(replies.counts) <= ANSWERS, "0 failed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_workers_one_after_the_other(
    stand: Stand, rate: float, figure, rounds: Iterator[int], seed: int, number: signal.Signals
) -> None:
    gone: list[float] = []
    replaced: list[float] = []
    start = time.monotonic()
    async with stand.asking(rate_per_s=rate, seed=seed, timeout_seconds=PATIENCE_SECONDS) as replies:
        await asyncio.sleep(0.5)
        for _ in rounds:
            for _ in range(2):
                before = stand.workers
                victim, began = psutil.Process(min(before)), time.monotonic()
                os.kill(victim.pid, number)
                await asyncio.to_thread(victim.wait, LONGEST_SECONDS)
                gone.append(time.monotonic() - began)
                while victim.pid in stand.workers or not stand.all_serve():
                    assert time.monotonic() - began < LONGEST_SECONDS
                    await asyncio.sleep(0.02)
                replaced.append(time.monotonic() - began)
                assert number is signal.SIGTERM or within(replaced[-1], REPLACED_SECONDS)
                await asyncio.sleep(0.5)
    failed = sum(count for label, count in replies.counts.items() if label in ("UNAVAILABLE", "CANCELLED"))
    figure(
        wrong=f"0 of {len(replies)}", failed=failed, workers=len(gone), gone=max(gone), replaced=max(replaced),
        p50=replies.percentile(0.5), p95=replies.percentile(0.95), **replies.counts,
    )  # fmt: skip
    assert not replies.wrong_count, replies.wrong
    assert within(replies.percentile(0.95), LATENCY_SECONDS, start, share=0.95)
    if number is signal.SIGTERM:
        assert set(replies.counts) <= ANSWERS, "0 failed"
    else:
        assert failed <= 0.02 * len(replies)
