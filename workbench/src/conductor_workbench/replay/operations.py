"""What a replay does besides calling the servers: wait for features, and train."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_client import ConductorClient, Unavailable
from conductor_model_store import ModelStore
from conductor_training.jobs import Trained, train_build_duration, warehouse_frames
from conductor_warehouse.cursors import lags
from conductor_workbench.replay.history import History

_POLL_SECONDS = 0.002
_LONGEST_SETTLE_SECONDS = 15.0
_LONGEST_ROLL_OUT_SECONDS = 30.0

Progress = Callable[[str], None]


class Settle:
    """Waits until the tailing writer has carried everything committed to the online store."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection: psycopg.Connection | None = None
        self.given_up_count = 0
        """Times that it went on although features were behind."""

    async def __call__(self) -> None:
        """Return once nothing is behind, or after a while with what there is: answers say what they lacked."""
        deadline = time.monotonic() + _LONGEST_SETTLE_SECONDS
        while await asyncio.to_thread(self._behind):
            if time.monotonic() > deadline:
                self.given_up_count += 1
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _behind(self) -> bool:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._database_url, autocommit=True)
            return any(lag.rows for lag in lags(self._connection))
        except psycopg.OperationalError:
            return True  # the database is away: nobody can tell

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


@dataclass
class Trainer:
    """Trains a tenant's model at its cut, and waits until the server answers from it."""

    database_url: str
    store: ModelStore
    predictions: Callable[[str], ConductorClient]
    latest: Mapping[str, BuildContext]
    """The last build of each tenant before its cut, to ask the server about."""
    progress: Progress
    trained: list[Trained] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    async def __call__(self, tenant_id: str, until: datetime) -> None:
        """Train, publish, and return once it serves. Raises what training raises."""
        began = time.perf_counter()
        results = await asyncio.to_thread(self._train, tenant_id, until)
        self.trained += results
        self.seconds[tenant_id] = time.perf_counter() - began
        # The tenant's own model comes last; where it has too little history, the global one serves it.
        version = next((result.version for result in reversed(results) if result.version), "")
        if version and tenant_id in self.latest:
            await self._await_roll_out(tenant_id, version)

    def _train(self, tenant_id: str, until: datetime) -> list[Trained]:
        return list(
            train_build_duration(
                read_frame=warehouse_frames(self.database_url, until),
                store=self.store,
                tenant_id=tenant_id,
                progress=self.progress,
            )
        )

    async def _await_roll_out(self, tenant_id: str, version: str) -> None:
        """Ask until ``version`` answers. Raises TimeoutError."""
        self.progress(f"{tenant_id}: waiting for the server to take it up")
        deadline = time.monotonic() + _LONGEST_ROLL_OUT_SECONDS
        client = self.predictions(tenant_id)
        while True:
            with contextlib.suppress(Unavailable):  # there is nothing to answer from before the first model
                answer = await client.predict_build_duration(tenant_id, self.latest[tenant_id], timeout_seconds=5.0)
                if answer.model_version == version:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not serve the model of {tenant_id} that was just published")
            await asyncio.sleep(0.05)


def latest_before(history: History, cuts: Mapping[str, datetime]) -> dict[str, BuildContext]:
    """The last passed build of each tenant that was queued before its cut, as if it were queued again now."""
    latest: dict[str, BuildContext] = {}
    for build in history.builds:
        if build.queued_time < cuts[build.tenant_id] and build.outcome and build.outcome.passed:
            latest[build.tenant_id] = build.context
    return latest
