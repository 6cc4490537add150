"""Events to measure ingestion with, the same for the same worker and count."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2024, 1, 1, tzinfo=UTC)
"""Early enough for ten million events of builds to be of the past: events of the future are refused."""
RESULTS_PER_RUN = 5_000


def event(kind: str, event_id: str, at: datetime, tenant: str, data: dict[str, Any]) -> bytes:
    """A CloudEvent as JSON."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "/bench",
            "type": kind,
            "time": stamp(at),
            "tenantid": tenant,
            "data": data,
        }
    ).encode()


def stamp(at: datetime) -> str:
    """A time as events spell it."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def build_events(worker: int, count: int, begin: int = 0) -> Iterator[bytes]:
    """An even number of events, two of each build, in the order of their time.

    Four tenants of 30 pipelines and 90 branches each, a build every ten seconds on average.

    Args:
        worker: each has tenants of its own.
        count: of the events.
        begin: how many came before; so a long history can be made in pieces, each at once.
    """
    chance = random.Random(f"{worker} from {begin}")  # noqa: S311 - made-up events
    running: list[tuple[datetime, bytes]] = []
    first = begin // 2
    for number in range(first, first + -(-count // 2)):
        now = START + timedelta(seconds=10 * number + chance.randrange(10))
        took = round(chance.lognormvariate(5, 1), 3)
        place = {
            "repository": f"repository-{chance.randrange(10)}",
            "pipeline": f"pipeline-{chance.randrange(3)}",
            "branch": chance.choice(["main", "feature/one", "feature/two"]),
        }
        tenant, build = f"tenant-{worker}-{chance.randrange(4)}", f"build-{number}"
        queued = {**place, "queuedTime": stamp(now), "change": {"addedLineCount": "12", "fileExtensions": [".py"]}}
        done = now + timedelta(seconds=took)
        completed = {
            "buildId": build,
            **place,
            "queuedTime": stamp(now),
            "completedTime": stamp(done),
            "outcome": "BUILD_OUTCOME_" + chance.choice(["SUCCESS"] * 5 + ["FAILURE"]),
            "duration": f"{took:.3f}s",
        }
        while running and running[0][0] <= now:
            yield heapq.heappop(running)[1]
        yield event("build.queued", f"{build}-q", now, tenant, {"buildId": build, "context": queued})
        heapq.heappush(running, (done, event("build.completed", f"{build}-c", done, tenant, completed)))
    while running:
        yield heapq.heappop(running)[1]


def test_events(worker: int, count: int) -> Iterator[bytes]:
    """Runs of the same 5,000 tests, two of a hundred failing."""
    chance = random.Random(worker)  # noqa: S311 - made-up events
    for number in range(count):
        at = START + timedelta(minutes=10 * number)
        results = [
            {
                "testId": f"com.example.shop.checkout.CheckoutTest#case{test}",
                "outcome": "TEST_OUTCOME_" + ("FAILED" if chance.random() < 0.02 else "PASSED"),
                "duration": "0.125s",
            }
            for test in range(RESULTS_PER_RUN)
        ]
        data = {"runId": f"run-{number}", "repository": "shop", "completedTime": stamp(at), "results": results}
        yield event("test.completed", f"run-{number}", at, f"tenant-{worker}", data)
