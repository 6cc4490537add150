"""Callers in a process of their own: they ask at a fixed rate, whatever comes back, and judge every answer.

By unary calls, by batches, by items of streams that stay open, by streams of a few items, and by calls about tests; a
share of them goes away at a random moment. Every question about a build has a nonce of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from conductor_client import BuildDurationPrediction, ConductorClient, ConductorError
from conductor_client.build_duration_stream import BuildDurationStream
from conductor_workbench.bench.children import answer_requests
from conductor_workbench.faults import tests_traffic
from conductor_workbench.faults.oracle import NONCES, Asked, Oracle, questions, tenant_id
from conductor_workbench.faults.replies import Replies
from conductor_workbench.faults.tests_asked import TestsAsked, TestsTold
from conductor_workbench.faults.tests_oracle import TestsOracle

_Answer = BuildDurationPrediction | TestsTold | ConductorError

_MOST_TOLD = 10
_TICK_SECONDS = 0.002
_TICKS_PER_LOOK = 10


@dataclass(frozen=True)
class Traffic:
    """Who asks whom, and how."""

    target: str
    root_certificates: str
    tokens: Mapping[str, str]
    """By tenant."""
    versions: Mapping[str, Mapping[str, int]]
    """As the oracle takes them."""
    test_versions: Mapping[str, Mapping[str, int]]
    """The same for tests."""
    moment: str
    """Every build's queued time, in ISO form: rows are as of before it."""
    tenants: int
    seconds: float = 1.0
    """How long, unless told to stop before."""
    progress_file: str = ""
    """Made when calls begin; holds when the last answered call was due, and the last one not answered in full."""
    stop_file: str = ""
    """Calls go on until it is there."""
    rate_per_s: float = 0.0
    """Calls a second, answered or not."""
    in_flight: int = 0
    """Instead of a rate: so many calls are always under way."""
    kinds: Mapping[str, int] = field(default_factory=lambda: {"unary": 3, "batch": 1, "stream": 2, "burst": 1})
    """Shares of the kinds of calls."""
    items: int = 6
    """Questions of a batch or a burst."""
    whole_share: float = 0.5
    """Of calls about tests, those that are about all of a tenant's."""
    cancelled_share: float = 0.0
    cancelled_within_seconds: float = 0.05
    timeout_seconds: float = 1.0
    errors: Sequence[str] = ("UNAVAILABLE",)
    """Status codes that are no wrong answers."""
    seed: int = 0


class _Callers:
    def __init__(self, traffic: Traffic) -> None:
        self._traffic, self._oracle = traffic, Oracle(traffic.versions)
        self._tests_oracle = TestsOracle(traffic.test_versions)
        self._chance = random.Random(traffic.seed)  # noqa: S311 - no secret
        self._entities = questions(traffic.tenants)
        self._nonces = itertools.count(self._chance.randrange(NONCES))
        self._moment = datetime.fromisoformat(traffic.moment)
        self._clients: dict[str, ConductorClient] = {}
        self._streams: dict[str, BuildDurationStream] = {}
        self._end, self._stopped = 0.0, False
        self._last = self._last_not_full = 0.0
        self.replies = Replies()

    async def run(self) -> Replies:
        async with AsyncExitStack() as stack:
            for number in range(self._traffic.tenants):
                name = tenant_id(number)
                client = ConductorClient.connect(
                    self._traffic.target,
                    token=self._traffic.tokens[name],
                    root_certificates=self._traffic.root_certificates.encode(),
                    timeout_seconds=self._traffic.timeout_seconds,
                )
                self._clients[name] = await stack.enter_async_context(client)
                self._streams[name] = await stack.enter_async_context(client.build_duration_stream())
            self._end = time.monotonic() + self._traffic.seconds
            watching = asyncio.create_task(self._watch_the_clock())
            await (self._keep_under_way() if self._traffic.in_flight else self._keep_the_rate())
            watching.cancel()
        return self.replies

    async def _keep_the_rate(self) -> None:
        rate, tasks = self._traffic.rate_per_s, set[asyncio.Task[None]]()
        start = time.monotonic() + 0.01
        for number in itertools.count():
            due = start + number / rate
            if due >= self._end or self._stopped:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._call(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.gather(*tasks)

    async def _keep_under_way(self) -> None:
        async def keep_calling() -> None:
            while (now := time.monotonic()) < self._end and not self._stopped:
                await self._call(now)

        await asyncio.gather(*(keep_calling() for _ in range(self._traffic.in_flight)))

    async def _call(self, due: float) -> None:
        """One call, judged unless its caller goes away."""
        chance, traffic = self._chance, self._traffic
        [kind] = chance.choices(list(traffic.kinds), list(traffic.kinds.values()))
        asked, asking = self._about_tests(kind) if kind in tests_traffic.KINDS else self._about_builds(kind)
        leaves = chance.random() < traffic.cancelled_share
        patience = chance.uniform(0, traffic.cancelled_within_seconds) if leaves else None
        self.replies.calls += 1
        answering = asyncio.ensure_future(asking)
        await asyncio.wait({answering}, timeout=patience)
        if not answering.done():
            self.replies.cancelled += 1
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            return
        seconds = time.monotonic() - due
        for one, answer in zip(asked, answering.result(), strict=True):
            self._judge(kind, one, answer, due, seconds)

    def _about_builds(self, kind: str) -> tuple[Sequence[Any], Awaitable[list[_Answer]]]:
        count = self._traffic.items if kind in ("batch", "burst") else 1
        first = self._chance.choice(self._entities)
        of_tenant = [one for one in self._entities if one.tenant == first.tenant]
        those = (first, *self._chance.choices(of_tenant, k=count - 1))
        asked = [replace(one, nonce=next(self._nonces) % NONCES) for one in those]
        return asked, _KINDS[kind](self, first.tenant_id, asked)

    def _about_tests(self, kind: str) -> tuple[Sequence[Any], Awaitable[list[_Answer]]]:
        asked = tests_traffic.draw(self._chance, kind, self._traffic.whole_share)
        return [asked], self._tests(asked)

    def _judge(self, kind: str, asked: Asked | TestsAsked, answer: _Answer, due: float, seconds: float) -> None:
        replies = self.replies
        replies.sent.append(due)
        replies.seconds.append(seconds)
        replies.kinds.append(kind)
        if isinstance(answer, ConductorError):
            label = answer.code.name
            reason = "" if label in self._traffic.errors else str(answer)
        else:
            label = answer.method.name
            reason = self._wrong(asked, answer)
        replies.labels.append(label)
        self._last = max(self._last, due)
        if label != "MODEL":
            self._last_not_full = max(self._last_not_full, due)
        if reason:
            replies.wrong_count += 1
            if len(replies.wrong) < _MOST_TOLD:
                replies.wrong.append(f"{asked}: {reason}")

    def _wrong(self, asked: Any, answer: BuildDurationPrediction | TestsTold) -> str:
        if isinstance(answer, TestsTold):
            return self._tests_oracle.wrong(asked, answer)
        return self._oracle.wrong(asked, answer)

    async def _tests(self, asked: TestsAsked) -> list[_Answer]:
        return [await _or_error(tests_traffic.ask(self._clients, asked, self._moment))]

    async def _unary(self, tenant: str, asked: Sequence[Asked]) -> list[_Answer]:
        return [await _or_error(self._clients[tenant].predict_build_duration(tenant, self._build(asked[0])))]

    async def _batch(self, tenant: str, asked: Sequence[Asked]) -> list[_Answer]:
        builds = [self._build(one) for one in asked]
        found = await _or_error(self._clients[tenant].batch_predict_build_durations(tenant, builds))
        return [found] * len(asked) if isinstance(found, ConductorError) else found

    async def _stream(self, tenant: str, asked: Sequence[Asked]) -> list[_Answer]:
        return [await _or_error(self._streams[tenant].predict(tenant, self._build(asked[0])))]

    async def _burst(self, tenant: str, asked: Sequence[Asked]) -> list[_Answer]:
        async with self._clients[tenant].build_duration_stream() as stream:
            answers = (_or_error(stream.predict(tenant, self._build(one))) for one in asked)
            return list(await asyncio.gather(*answers))

    def _build(self, asked: Asked) -> Any:
        return asked.build(self._moment)

    async def _watch_the_clock(self) -> None:
        stop, progress = self._traffic.stop_file, self._traffic.progress_file
        while True:
            if progress:
                _write(Path(progress), f"{self._last} {self._last_not_full}")
            for _ in range(_TICKS_PER_LOOK):
                began = time.monotonic()
                await asyncio.sleep(_TICK_SECONDS)
                late = time.monotonic() - began - _TICK_SECONDS
                self.replies.noise_seconds = max(self.replies.noise_seconds, late)
            self._stopped = bool(stop) and os.path.exists(stop)  # noqa: ASYNC240, PTH110 - a look that takes microseconds


_KINDS: Mapping[str, Callable[[_Callers, str, Sequence[Asked]], Awaitable[list[_Answer]]]] = {
    "unary": _Callers._unary,
    "batch": _Callers._batch,
    "stream": _Callers._stream,
    "burst": _Callers._burst,
}


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)


async def _or_error(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except ConductorError as error:
        return error


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    return asdict(uvloop.run(_Callers(Traffic(**request)).run()))


if __name__ == "__main__":
    answer_requests(_answer)
