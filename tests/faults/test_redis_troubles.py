"""F1 to F4: whatever is wrong with Redis, or the way to it, answers are right, labelled and in time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence

from conductor_workbench.faults.replies import Replies
from conductor_workbench.faults.stand import Stand
from faults.scene import LATENCY_SECONDS, LONGEST_RECOVERY_SECONDS
from faults.troubles import TROUBLES
from machine import within

RATE = 50.0
"""Calls a second; more than twice as many questions."""
RECOVERY_SECONDS = 5.0
CONNECTIONS = 2 * 3
"""To Redis: of each worker, for single rows, for tests' rows, and for lists and graphs."""
LASTS_SECONDS = CALM_SECONDS = 0.5
NOTICED_SECONDS = 0.05
PATIENCE_SECONDS = 30.0
"""Deadline of calls."""
ROUNDS_TO_BE_IN_TIME = 3
"""A stall of a shared machine is not there again the next time. What a trouble does to the latency is."""


async def test_each_trouble_by_itself(stand: Stand, figure, rounds: Iterator[int], seed: int, long_form: bool) -> None:
    chance = random.Random(seed)
    asked, recovery = 0, 0.0
    p95: dict[str, float] = {}
    for _ in rounds:
        names = [name for name, trouble in TROUBLES.items() if long_form or trouble.in_short_form]
        chance.shuffle(names)
        late = names
        for _ in range(ROUNDS_TO_BE_IN_TIME):
            replies, seconds, slowest = await _one_after_the_other(stand, late, chance.getrandbits(32))
            asked += len(replies)
            recovery = max(recovery, slowest)
            p95 |= seconds
            late = [name for name in late if not within(seconds[name], LATENCY_SECONDS)]
            if not late:
                break
        assert not late, {name: p95[name] for name in late}
    calm = p95.pop("calm")
    worst = max(p95, key=lambda name: p95[name])
    figure(wrong=f"0 of {asked}", p95=p95[worst], worst=worst, p95_calm=calm, recovery=recovery)


async def _one_after_the_other(
    stand: Stand, names: Sequence[str], seed: int
) -> tuple[Replies, dict[str, float], float]:
    """Checks all but the latency, and returns its 95th percentile under each trouble, with the longest recovery."""
    begins, ends, recovery = [], [], dict[str, float]()
    async with stand.asking(rate_per_s=RATE, seed=seed, timeout_seconds=PATIENCE_SECONDS) as replies:
        await asyncio.sleep(CALM_SECONDS)
        for name in names:
            begins.append(time.monotonic())
            async with TROUBLES[name].trouble(stand):
                await asyncio.sleep(LASTS_SECONDS)
                assert stand.vitals().redis_connections <= CONNECTIONS, f"{name}: those of each worker"
            ends.append(time.monotonic())
            recovery[name] = await stand.recovered(ends[-1], LONGEST_RECOVERY_SECONDS)
            assert within(recovery[name], RECOVERY_SECONDS), name
    assert not replies.wrong_count, replies.wrong
    # Every question has a fallback: nothing is unavailable.
    assert set(replies.counts) <= {"MODEL", "MODEL_DEGRADED", "HISTORY"}, replies.counts
    calm = replies.between(0, begins[0])
    calm_share = calm.counts.get("MODEL", 0) / len(calm)
    found = {"calm": calm.percentile(0.95)}
    for name, begin, end in zip(names, begins, ends, strict=True):
        least, most = TROUBLES[name].full_share
        during = replies.between(begin + NOTICED_SECONDS, end)
        found[name] = during.percentile(0.95)
        share = during.counts.get("MODEL", 0) / len(during)
        assert least * calm_share <= share <= most, f"{name}: {share:.0%} in full, {during.counts}"
    return replies, found, max(recovery.values())
