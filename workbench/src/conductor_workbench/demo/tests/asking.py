"""What the demo does with a running platform: train, ask before a run, tell what came of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from conductor_client import ConductorClient
from conductor_client.testing.enums import FlakyState, SelectionReason
from conductor_client.testing.words import CHOICES
from conductor_workbench.demo.tests.histories import Run
from conductor_workbench.demo.tests.judging import Asked
from conductor_workbench.embedded.platform import Platform
from conductor_workbench.replay.embedded import platform_target
from conductor_workbench.replay.history import cloud_event
from conductor_workbench.replay.operations import Settle

_ROLL_OUT_SECONDS = 30.0


class TestReplay:
    """Asks a platform about runs, one after the other. Use as ``async with TestReplay(…) as replay``."""

    __test__ = False

    def __init__(self, platform: Platform, miss_rate: float, say: Callable[[str], None]) -> None:
        self._platform, self._miss_rate, self._say = platform, miss_rate, say
        self._settle = Settle(platform.database_url)
        self._target = platform_target(platform, self._settle)

    async def __aenter__(self) -> Self:
        await self._settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._target.__aexit__(kind, error, trace)
        self._settle.close()

    async def train(self, tenant_id: str, run: Run) -> None:
        """Train a tenant's models on what has been told so far, and return once the server answers by them.

        Raises ChildFailed, TimeoutError.
        """
        self._say(f"{tenant_id}: training")
        until = run.started.isoformat()
        await asyncio.to_thread(self._platform.run, "train", "test-failure", "--tenant", tenant_id, "--until", until)
        pointer = self._platform.open_models().resolve("test-failure", tenant_id)
        if pointer is None:
            self._say(f"{tenant_id}: too little history for a model of its own")
            return
        deadline = time.monotonic() + _ROLL_OUT_SECONDS
        while await self._version(tenant_id, run) != pointer.version:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not serve the model of {tenant_id} that was just published")
            await asyncio.sleep(0.05)

    async def _version(self, tenant_id: str, run: Run) -> str:
        answer = await self._client(tenant_id).predict_test_failures(
            tenant_id, repository=run.data.repository, test_ids=run.tests[:1], start_time=run.started
        )
        return answer.provenance.model_version

    async def ask(self, tenant_id: str, run: Run) -> Asked:
        """Which tests to run and in which order, by what was known before the run began. Raises ConductorError."""
        context: Any = {
            "repository": run.data.repository,
            "commit_sha": run.data.commit_sha,
            "test_ids": run.tests,
            "changed_files": list(run.data.changed_paths),
            "start_time": run.started,
        }
        client = self._client(tenant_id)
        began = time.perf_counter()
        selection = await client.select_tests(tenant_id, miss_rate=self._miss_rate, **context)
        took = time.perf_counter() - began
        async with await client.prioritize_tests(tenant_id, **context) as order:
            ordered = [test.test_id async for test in order]
        places = dict(zip(ordered, range(len(ordered)), strict=True))
        reasons = [SelectionReason(number) for number in selection.reason_numbers]
        promise = selection.promise
        return Asked(
            run=run,
            probabilities=np.array(selection.probabilities, np.float64),
            selected=np.isin(np.arange(len(run.tests)), selection.selected),
            audited=np.array([reason is SelectionReason.AUDIT for reason in reasons], bool),
            rank=np.array([places[test] for test in run.tests], np.float64),
            reasons=[CHOICES[reason] for reason in reasons],
            promise="none" if promise is None else promise.basis.name.lower().replace("_", " "),
            level=0.0 if promise is None else promise.level,
            latency_seconds=took,
        )

    async def tell(self, run: Run) -> None:
        """Deliver what came of a run; returns once features tell of it. Raises ConductorError."""
        await self._target.deliver([cloud_event(json.loads(run.event.to_json()))])
        await self._settle()

    async def flaky_tests(self, tenant_id: str, repository: str) -> list[dict[str, Any]]:
        """What is known of flaky tests now."""
        found = self._client(tenant_id).list_flaky_tests(
            tenant_id, repository, states=[FlakyState.ACTIVE, FlakyState.QUARANTINED, FlakyState.FIXED]
        )
        return [
            {
                "test": test.test_id,
                "state": test.state.name.lower(),
                "flaky_probability": test.probability,
                "rerun_flips": test.evidence.rerun_flip_count,
                "failures": test.evidence.failure_count,
                "runs": test.evidence.run_count,
            }
            async for test in found
        ]

    def _client(self, tenant_id: str) -> ConductorClient:
        return self._target.predictions(tenant_id)
