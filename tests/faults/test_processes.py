"""F10: processes of the platform that are killed under load. Several workers: `test_saturated.py`."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from faults.scene import Reply, Scene, explain, labels, lacking, percentile, wrong
from machine import within

SINGLE_BACK_SECONDS = 10.0


async def test_the_only_server_killed(scene: Scene, figure) -> None:
    """The platform starts it again at the same address; until then callers are told UNAVAILABLE."""
    recovery = 0.0
    async with scene.asking() as asking:

        async def during(replies: list[Reply]) -> None:
            nonlocal recovery
            await asyncio.sleep(0.3)
            os.kill(scene.platform.pid("serve"), signal.SIGKILL)
            killed = time.monotonic()
            recovery = await asking.recovered(replies, killed)
            assert within(recovery, SINGLE_BACK_SECONDS, killed)

        replies = await asking.load(40, during)
    found = wrong(scene, replies)
    figure(wrong=f"{len(found)} of {len(replies)}", recovery=recovery, **labels(replies))
    assert not found, explain(found)


@pytest.mark.parametrize("process", ["warehouse-serve", "warehouse-tail"])
async def test_the_other_processes_killed(scene: Scene, figure, process: str) -> None:
    """Predictions do not notice; the process is started again and does its work."""
    victim = scene.platform.pid(process)
    async with scene.asking() as asking:

        async def during(replies: list[Reply]) -> None:
            os.kill(victim, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while scene.platform.pid(process) == victim:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

        replies = await asking.load(40, during)
    found = wrong(scene, replies)
    figure(wrong=f"{len(found)} of {len(replies)}", p95=percentile(replies))
    assert not found, explain(found)
    assert not lacking(replies), labels(replies)
