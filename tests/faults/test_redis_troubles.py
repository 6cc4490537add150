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
from machine import tries, within

RATE = 50.0
"""Calls a second; more than twice as many questions."""
RECOVERY_SECONDS = 5.0
CONNECTIONS = 2 * 3
"""To Redis: of each worker, for single rows, for tests' rows, and for lists and graphs."""
LASTS_SECONDS = CALM_SECONDS = 0.5
NOTICED_SECONDS = 0.05
PATIENCE_SECONDS = 30.0
"""Deadline of calls."""
TRIES = 6
"""Of troubles that seem to do what they must not while others keep the machine busy."""


async def test_each_trouble_by_itself(stand: Stand, figure, rounds: Iterator[int], seed: int, long_form: bool) -> None:
    chance = random.Random(seed)
    asked, recovery = 0, 0.0
    p95: dict[str, float] = {}
    for _ in rounds:
        names = [name for name, trouble in TROUBLES.items() if long_form or trouble.in_short_form]
        chance.shuffle(names)
        for _ in tries(TRIES):
            replies, seconds, slowest, problems = await _one_after_the_other(stand, names, chance.getrandbits(32))
            asked += len(replies)
            recovery = max(recovery, slowest)
            p95 |= seconds
            names = list(problems)
            if not problems:
                break
        assert not problems, problems
    calm = p95.pop("calm")
    worst = max(p95, key=lambda name: p95[name])
    figure(wrong=f"0 of {asked}", p95=p95[worst], worst=worst, p95_calm=calm, recovery=recovery)


async def _one_after_the_other(
    stand: Stand, names: Sequence[str], seed: int
) -> tuple[Replies, dict[str, float], float, dict[str, str]]:
    """Returns the 95th percentile of the latency under each trouble, the longest recovery, and what may be due to the
    machine: troubles with too late answers, or another share of full ones than there must be."""
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
            assert within(recovery[name], RECOVERY_SECONDS, ends[-1]), name
    assert not replies.wrong_count, replies.wrong
    # Every question has a fallback: nothing is unavailable.
    assert set(replies.counts) <= {"MODEL", "MODEL_DEGRADED", "HISTORY"}, replies.counts
    found, problems = {"calm": replies.between(0, begins[0]).percentile(0.95)}, dict[str, str]()
    for name, begin, end in zip(names, begins, ends, strict=True):
        least, most = TROUBLES[name].full_share
        during = replies.between(begin + NOTICED_SECONDS, end)
        found[name] = during.percentile(0.95)
        share = during.counts.get("MODEL", 0) / len(during)
        if not least <= share <= most:
            problems[name] = f"{share:.0%} in full, {during.counts}"
        elif not within(found[name], LATENCY_SECONDS, begin, share=0.95):
            problems[name] = f"95 % within {found[name]:.3f} s"
    return replies, found, max(recovery.values()), problems
