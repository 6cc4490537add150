"""S8, S9: connections held open, and floods of frames, from a process of their own, beside calls at a fixed rate."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ending
from faults.scene import Asking, Reply, Scene, explain, percentile, until, wrong
from machine import tries
from security import raw_http2
from security.attacked import ATTACK_SECONDS, Attacked

RATE, SECONDS, TRIES = 40, max(1.0, ATTACK_SECONDS), 8
HELD = 2_000 if ATTACK_SECONDS else 490
CHANGE, GOOD = 1.2, 0.9
PATIENCE_SECONDS = 10.0
"""Deadline of good calls: on a busy machine they are slow, attacked or not."""
TOLD_SECONDS = 30.0
"""How much longer than it lasts a flood goes on that has not been told yet why it is refused."""
ENHANCE_YOUR_CALM = 11
_PROGRAM = Path(raw_http2.__file__)
CUT = ("pings",)
"""Floods whose connections gRPC ends."""
REFUSED = ("pings", "rapid-reset")
"""Floods whose connections or streams are ended with ENHANCE_YOUR_CALM, and with nothing else."""
SLOWED = ("rapid-reset", "settings")
"""Floods that gRPC reads more and more slowly: the connection stays, and costs next to nothing."""


@dataclass(frozen=True)
class Beside:
    """Good calls without an attack, and beside it."""

    calm: list[Reply]
    attacked: list[Reply]

    @property
    def served(self) -> float:
        """Share of the throughput in the calm that is left."""
        return _goodput(self.attacked) / _goodput(self.calm)

    @property
    def slower(self) -> float:
        """How many times as long half of the answers take, a millisecond being nothing."""
        return (percentile(self.attacked, 0.5) - 0.001) / percentile(self.calm, 0.5)

    def figures(self) -> dict[str, object]:
        return {
            "served": self.served,
            "p50_ms": percentile(self.attacked, 0.5) * 1e3,
            "calm_p50_ms": percentile(self.calm, 0.5) * 1e3,
            "p95_ms": percentile(self.attacked) * 1e3,
            "calm_p95_ms": percentile(self.calm) * 1e3,
        }


def _goodput(replies: list[Reply]) -> float:
    return sum(reply.answer is not None for reply in replies) / len(replies)


def problems(beside: Beside) -> list[str]:
    """What an attack did that it must not."""
    found = []
    if beside.served < GOOD:
        found.append(f"only {beside.served:.0%} are served")
    if beside.slower > CHANGE:
        found.append(f"{beside.slower:.2f} times as slow")
    return found


@asynccontextmanager
async def attackers(*commands: tuple[str, ...]) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(_PROGRAM), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            await ending.kill(process)


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(60 + SECONDS):
        return dict(json.loads(await process.stdout.readline()))


@pytest.mark.parametrize("kinds", [(kind,) for kind in raw_http2.KINDS] if ATTACK_SECONDS else [raw_http2.KINDS])
async def test_connections_held_open(scene: Scene, figure: Callable[..., None], kinds: tuple[str, ...]) -> None:
    """S8. In the short form some of each kind at once, in the long form thousands of one kind after the other."""
    of_each = HELD // len(kinds)
    authority = str(scene.platform.keys.ca_certificate)
    commands = [("hold", kind, str(of_each), scene.platform.prediction_target, authority) for kind in kinds]
    async with scene.asking(timeout_seconds=PATIENCE_SECONDS) as asking:
        await asking.load(RATE, lambda _: asyncio.sleep(0.3))
        for _ in tries(TRIES):
            beside, held, megabytes = await _beside_connections(scene, asking, commands)
            figure(kinds=" ".join(kinds), held=sum(held), mb=megabytes, **beside.figures())
            assert held == [of_each] * len(kinds)
            found = wrong(scene, [reply for reply in beside.attacked if reply.answer])
            assert not found, explain(found)
            if not problems(beside):
                return
    pytest.fail(f"{problems(beside)}: {beside.figures()}")


async def _beside_connections(
    scene: Scene, asking: Asking, commands: list[tuple[str, ...]]
) -> tuple[Beside, list[int], float]:
    """Calls before, beside and after; how many connections of each kind were held, and what memory they took.

    Of the two calms the slower one counts: the machine is not the server's alone.
    """
    server = Attacked(scene.platform.pid("serve"))
    before = server.held()
    calm = await asking.load(RATE, lambda _: asyncio.sleep(SECONDS))
    async with attackers(*commands) as processes:
        held = [(await said(process))["held"] for process in processes]
        most = server.held()
        attacked = await asking.load(RATE, lambda _: asyncio.sleep(SECONDS))
    await until(lambda: server.held().descriptors <= before.descriptors + 5, 60, "descriptors are back")
    after = await asking.load(RATE, lambda _: asyncio.sleep(SECONDS))
    slower = max(calm, after, key=lambda replies: percentile(replies, 0.5))
    return Beside(slower, attacked), held, most.megabytes - before.megabytes


@pytest.mark.parametrize("attacks", [(name,) for name in raw_http2.ATTACKS] if ATTACK_SECONDS else [(*CUT, *SLOWED)])
async def test_floods_of_frames(scene: Scene, figure: Callable[..., None], attacks: tuple[str, ...]) -> None:
    """S9. In the short form those of the list at once, in the long form these and others one after the other."""
    server, authority = Attacked(scene.platform.pid("serve")), str(scene.platform.keys.ca_certificate)
    patience = {attack: TOLD_SECONDS * (attack in REFUSED) for attack in attacks}
    commands = [
        (attack, scene.platform.prediction_target, authority, str(SECONDS), str(patience[attack])) for attack in attacks
    ]
    async with scene.asking(timeout_seconds=PATIENCE_SECONDS) as asking:
        await asking.load(RATE, lambda _: asyncio.sleep(0.3))
        before = server.held()
        calm = await asking.load(RATE, lambda _: asyncio.sleep(SECONDS))
        async with attackers(*commands) as processes:
            floods = asyncio.gather(*map(said, processes))
            beside = Beside(calm, await asking.load(RATE, lambda _: floods))
        outcomes = dict(zip(attacks, await floods, strict=True))
        await asyncio.to_thread(server.require_back, before, megabytes=150)
    figure(**outcomes, **beside.figures())
    for attack in set(CUT) & set(attacks):
        assert outcomes[attack]["cut"] >= outcomes[attack]["connections"] - 1
    for attack in set(REFUSED) & set(attacks):
        assert outcomes[attack]["codes"] == [ENHANCE_YOUR_CALM]
    if set(attacks) <= {*CUT, *SLOWED}:
        assert beside.served >= GOOD, beside.figures()
    found = wrong(scene, [reply for reply in beside.attacked if reply.answer])
    assert not found, explain(found)


async def test_the_checks_find_a_server_that_is_held_up(scene: Scene) -> None:
    """The planted bug: one that lets a caller wait while somebody else is served."""
    async with scene.asking(timeout_seconds=PATIENCE_SECONDS) as asking:
        calm = await asking.load(RATE, lambda _: asyncio.sleep(0.3))

        async def held_up(number: int, due: float | None = None, **options: Any) -> Reply:
            await asyncio.sleep(max(0.05, percentile(calm, 0.5)))
            return await ask(number, due, **options)

        ask, asking.ask = asking.ask, held_up  # type: ignore[method-assign]
        slow = await asking.load(RATE, lambda _: asyncio.sleep(0.3))
    assert problems(Beside(calm, slow))
    assert not problems(Beside(calm, calm))
    lost = [Reply(reply.question, reply.sent, reply.seconds) for reply in calm[: len(calm) // 3]]
    assert problems(Beside(calm, calm[len(lost) :] + lost))
