"""F6: PostgreSQL dies while events come in and predictions are asked for.

F16 is proved in tests/warehouse/test_ingestion.py, test_killed_midway_and_run_again_it_ends_the_same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
from grpc import StatusCode

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_client import ConductorError, ErrorReason
from conductor_features.views import VIEWS
from faults.scene import Reply, Scene, explain, labels, lacking, percentile, wrong

BATCH = 10
_NOT_COMPARED = {"tenant_id", "log_id", "xid", "created", "received_time", "updated_time", "build_row_id"}


async def test_postgres_killed_while_events_come_in(scene: Scene, figure) -> None:
    disturbed, calm = _events(scene, "events-disturbed"), _events(scene, "events-calm")
    acknowledged: set[str] = set()
    refusals: list[ConductorError] = []

    async def publish(batch: Sequence[CloudEvent]) -> None:
        stored = await scene.publish(batch)
        assert stored <= len(batch)
        acknowledged.update(event.id for event in batch)

    async def outage(_: list[Reply]) -> None:
        killing = None
        for at in range(0, len(disturbed), BATCH):  # some before, some while it dies, some after
            if at == 3 * BATCH:
                killing = asyncio.ensure_future(asyncio.to_thread(scene.postgres.kill))
            try:
                await publish(disturbed[at : at + BATCH])
            except ConductorError as error:
                refusals.append(error)
                if killing is not None and killing.done():
                    break
        assert killing is not None
        await killing
        await scene.start_again(scene.postgres)

    async with scene.asking() as asking:
        replies = await asking.load(40, outage)
    found = wrong(scene, replies)
    assert not found, explain(found)
    assert not lacking(replies), labels(replies)
    assert {(error.code, error.reason) for error in refusals} == {
        (StatusCode.UNAVAILABLE, ErrorReason.WAREHOUSE_UNAVAILABLE)
    }, refusals

    await _publish_in_the_end(scene, disturbed[:BATCH])
    with psycopg.connect(scene.platform.database_url) as connection:
        stored = {
            row[0] for row in connection.execute("SELECT event_id FROM inbox WHERE tenant_id = 'events-disturbed'")
        }
    lost = acknowledged - stored
    figure(
        wrong=f"{len(found)} of {len(replies)}", p95=percentile(replies), refused_batches=len(refusals),
        lost=f"{len(lost)} of {len(acknowledged)}",
    )  # fmt: skip
    assert not lost
    for at in range(0, len(disturbed), BATCH):
        await scene.publish(disturbed[at : at + BATCH])
        await scene.publish(calm[at : at + BATCH])
    assert await scene.publish(disturbed) == 0, "all of it is stored, once"
    with psycopg.connect(scene.platform.database_url) as connection:
        tables = _tables(connection, "events-disturbed")
        assert tables == _tables(connection, "events-calm")
        assert len(tables["inbox"]) == len(disturbed)
    await scene.settled()  # the tailing writer is back too


async def _publish_in_the_end(scene: Scene, events: Sequence[CloudEvent]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await scene.publish(events)
                return
            except ConductorError as error:
                assert error.reason is ErrorReason.WAREHOUSE_UNAVAILABLE, error
                await asyncio.sleep(0.05)


def _events(scene: Scene, tenant_id: str) -> list[CloudEvent]:
    """A tenant's events as another tenant's: nobody is asked about that one, so no expected answer changes."""
    events = []
    for _, event in scene.history.events:
        if event.tenant_id == "tenant-000":
            copy = CloudEvent.FromString(event.SerializeToString())
            copy.tenant_id = tenant_id
            events.append(copy)
    return events[:120]


def _tables(connection: psycopg.Connection[Any], tenant_id: str) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table in ("inbox", "builds", "dead_letters", *(view.log_table for view in VIEWS.values())):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table} WHERE tenant_id = %s", (tenant_id,))  # noqa: S608 - our own names
            names = [column.name for column in cursor.description or ()]
            kept = [at for at, name in enumerate(names) if name not in _NOT_COMPARED]
            found[table] = sorted(tuple(map(str, (row[at] for at in kept))) for row in cursor)
    return found
