"""F10, F11: processes that are killed or stopped under load."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil
import pytest

from faults.scene import LATENCY_SECONDS, Reply, Scene, explain, labels, percentile, wrong

SINGLE_BACK_SECONDS = 10.0


async def test_the_only_server_killed(scene: Scene, figure) -> None:
    """The platform starts it again at the same address; until then callers are told UNAVAILABLE."""
    recovery = 0.0
    async with scene.asking() as asking:

        async def during(replies: list[Reply]) -> None:
            nonlocal recovery
            await asyncio.sleep(0.3)
            os.kill(scene.platform.pid("serve"), signal.SIGKILL)
            recovery = await asking.recovered(replies, time.monotonic(), SINGLE_BACK_SECONDS)

        replies = await asking.load(40, during)
    found = wrong(scene, replies)
    figure(wrong=f"{len(found)} of {len(replies)}", recovery=recovery, **labels(replies))
    assert not found, explain(found)
    assert recovery < SINGLE_BACK_SECONDS


@pytest.mark.parametrize("process", ["warehouse-serve", "warehouse-tail"])
async def test_the_other_processes_killed(scene: Scene, figure, process: str) -> None:
    """Predictions do not notice; the process is started again and does its work."""
    victim = scene.platform.pid(process)
    async with scene.asking() as asking:

        async def during(replies: list[Reply]) -> None:
            os.kill(victim, signal.SIGKILL)
            deadline = time.monotonic() + 5
            while scene.platform.pid(process) == victim:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

        replies = await asking.load(40, during)
    found = wrong(scene, replies)
    figure(wrong=f"{len(found)} of {len(replies)}", p95=percentile(replies))
    assert not found, explain(found)
    assert all(reply.full for reply in replies), labels(replies)


async def test_workers_killed_and_stopped_one_after_the_other(scene: Scene, figure) -> None:
    """kill -9: only calls under way may fail. SIGTERM: none does, as the client asks the other worker."""
    async with scene.serving("--workers", "2", "--grace", "0.3") as process, scene.asking(_address(process)) as asking:
        for number in range(len(scene.questions)):
            assert (await asking.ask(number)).full
        parent = psutil.Process(process.pid)
        outages: dict[int, float] = {}

        async def during(replies: list[Reply], number: signal.Signals) -> None:
            for _ in range(2):
                await asyncio.sleep(0.3)
                before = _workers(parent)
                victim = min(before)
                began = time.monotonic()
                os.kill(victim, number)
                while not (len(now := _workers(parent)) == 2 and victim not in now and _listen(now)):
                    assert time.monotonic() - began < 15
                    await asyncio.sleep(0.02)
                outages[number] = max(outages.get(number, 0.0), time.monotonic() - began)

        quiet = await asking.load(60, lambda _: asyncio.sleep(1.0))
        killed = await asking.load(60, lambda replies: during(replies, signal.SIGKILL))
        stopped = await asking.load(60, lambda replies: during(replies, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    for replies in (quiet, killed, stopped):
        assert not wrong(scene, replies), explain(wrong(scene, replies))
    failed = [reply for reply in killed if reply.error]
    figure(
        wrong=f"0 of {len(killed) + len(stopped)}", failed_by_kill=f"{len(failed)} of {len(killed)}",
        failed_by_stop=f"{sum(r.error is not None for r in stopped)} of {len(stopped)}", p95=percentile(stopped),
        replaced_after_kill=outages[signal.SIGKILL], replaced_after_stop=outages[signal.SIGTERM],
    )  # fmt: skip
    assert len(failed) <= 0.02 * len(killed)
    assert not any(reply.error for reply in stopped), labels(stopped)
    # A worker that starts takes a core for itself: on a machine that is busy already, as long as ten quiet answers.
    assert percentile(stopped, 0.5) <= max(LATENCY_SECONDS, 10 * percentile(quiet, 0.5))


def _address(process: asyncio.subprocess.Process) -> str:
    return process.address  # type: ignore[attr-defined,no-any-return]


def _workers(parent: psutil.Process) -> set[int]:
    found = set()
    for child in parent.children():
        try:
            if "conductor_server.worker" in child.cmdline():
                found.add(child.pid)
        except psutil.Error:
            continue
    return found


def _listen(pids: set[int]) -> bool:
    try:
        return all(any(c.status == psutil.CONN_LISTEN for c in psutil.Process(pid).net_connections()) for pid in pids)
    except psutil.Error:
        return False
