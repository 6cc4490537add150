"""What answers about tests in these tests, and a server that asks it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import numpy as np

from conductor.testing.v1 import test_intelligence_service_pb2_grpc as stubs
from conductor_model_store.promise import Reason as ThresholdReason
from conductor_model_store.promise import Threshold
from conductor_rpc.call import Deadline
from conductor_rpc.server import RpcServer
from conductor_rpc.settings import RpcSettings
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_server.prediction.answers import Contribution, Fallback, Method, ModelLabel, Origin
from conductor_server.servicers.testing import testing_service
from conductor_server.testing import answers
from conductor_server.testing.questions import Failure, MissRate, SelectionRules, TestRun, TimeShare

ORIGIN = Origin(
    Method.MODEL_DEGRADED,
    ModelLabel("models/test-failure/tenants/acme", "0123456789abcdef", "d" * 64),
    ("test_history_v2.failure_rate",),
    Fallback.NONE,
)
FACTS = answers.FlakyFacts(100, 12, 9, 4, 0.25, 0.75, 1_700_000_000.5, 3)
KNOWN = tuple(f"tests/test_known.py::test_{number}" for number in range(40))


@dataclass
class Minds:
    """Both ports. Probabilities fall with a test's place in the question; the last is to run first."""

    asked: list[Any] = field(default_factory=list)
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited before each answer; may raise."""
    known: Sequence[str] = KNOWN
    """Tests, where a question names none."""
    flaky: Sequence[str] = KNOWN
    promise: answers.Promise | None = None

    async def predict(self, run: TestRun, explanation_count: int, until: Deadline) -> answers.Predicted:
        await self._asked(run, explanation_count, until)
        return self._predicted(run, explanation_count)

    def _predicted(self, run: TestRun, explanation_count: int = 0) -> answers.Predicted:
        ids = run.test_ids or self.known
        way = answers.ImpactWay(2, ("src/a.py:f", "src/b.py", "tests/test_b.py"))
        told = (Contribution("failure_rate", 0.5, 0.1), Contribution("age", float("nan"), -0.02))
        explanations = [answers.Explanation(at, told, way if at else None) for at in range(explanation_count)]
        return answers.Predicted(
            test_ids=ids,
            probabilities=np.linspace(0.9, 0.1, len(ids)),
            reasons=np.arange(len(ids)) % 10,
            basis=answers.Basis(answers.Impact.GRAPH, "abc", 3, 1, ("pyproject.toml",)),
            origin=ORIGIN,
            oldest_age_seconds=12.5,
            explanations=explanations[: len(ids)],
        )

    async def order(self, run: TestRun, until: Deadline) -> answers.Ordered:
        await self._asked(run, None, until)
        return self._ordered(run)

    def _ordered(self, run: TestRun) -> answers.Ordered:
        predicted = self._predicted(run)
        count = len(predicted.test_ids)
        times = answers.Times(np.arange(1.0, count + 1), 2)
        return answers.Ordered(predicted, times, np.arange(count, dtype=np.intp)[::-1])

    async def select(
        self, run: TestRun, goal: TimeShare | MissRate, rules: SelectionRules, until: Deadline
    ) -> answers.Selected:
        await self._asked(run, (goal, rules), until)
        ordered = self._ordered(run)
        choices = np.full(len(ordered.order), int(answers.Choice.UNLIKELY))
        chosen = np.arange(min(2, len(choices)), dtype=np.intp)[::-1]
        choices[chosen] = (answers.Choice.AUDIT, answers.Choice.LIKELY_ENOUGH)[-len(chosen) :]
        return answers.Selected(ordered, choices, chosen, 0.02, 0.75, self.promise)

    async def list(
        self,
        tenant_id: str,
        repository: str,
        states: Collection[answers.FlakyStatus],
        count: int,
        after: str,
        until: Deadline,
    ) -> answers.FlakyPage:
        await self._asked((tenant_id, repository), (states, count, after), until)
        first = self.flaky.index(after) + 1 if after else 0
        page = self.flaky[first : first + count]
        history = [(answers.FlakyStatus.ACTIVE, 1_600_000_000.0), (answers.FlakyStatus.QUARANTINED, 1_600_000_100.0)]
        return answers.FlakyPage(
            [answers.FlakyOne(name, answers.FlakyStatus.QUARANTINED, 0.5, FACTS, history) for name in page],
            len(self.flaky),
            page[-1] if first + count < len(self.flaky) else "",
            ORIGIN,
        )

    async def classify(self, failure: Failure, until: Deadline) -> answers.Classified:
        await self._asked(failure.run, failure, until)
        return answers.Classified(
            answers.Verdict.FLAKY,
            0.25,
            0.625,
            0.125,
            ("it passed when it was tried again",),
            FACTS if failure.message else None,
            answers.NextStep.RERUN_TEST,
            answers.Basis(),
            ORIGIN,
        )

    async def _asked(self, *what: Any) -> None:
        self.asked.append(what)
        if self.before is not None:
            await self.before()


PROMISE = answers.Promise(
    0.05,
    answers.Ground.CALIBRATED,
    Threshold(0.125, ThresholdReason.CALIBRATED, 250, 0.04),
    1_700_000_000.0,
    answers.Realised(0.03, 120, 1_690_000_000.0, 1_700_000_000.0),
)


@asynccontextmanager
async def asking(minds: Any, telemetry: Telemetry = OFF, **settings: Any) -> AsyncIterator[tuple[Any, RpcServer]]:
    """A stub of a server whose answers these give, or the domain itself, and that server."""
    usual = {"port": 0, "grace_seconds": 0, "drain_seconds": 5, "insecure": True}
    server = RpcServer(RpcSettings(**usual | settings), [testing_service(minds, minds, telemetry)], telemetry=telemetry)
    await server.start()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)]
    options.append(("grpc.max_receive_message_length", 64 << 20))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            yield stubs.TestIntelligenceServiceStub(channel), server
    finally:
        await server.stop()


async def idle(server: RpcServer, seconds: float = 60.0) -> None:
    """Wait until nothing is under way there."""
    deadline = time.monotonic() + seconds
    while server.in_flight_count:
        assert time.monotonic() < deadline, server.in_flight_count
        await asyncio.sleep(0.01)
