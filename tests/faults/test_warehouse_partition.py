"""F6: the network between event service and PostgreSQL is cut, and connections that were open hang.

Statement timeouts are PostgreSQL's, who can't be heard then; kernels think that all is well: the proxy's end is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from grpc import StatusCode

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_client import ConductorClient, ConductorError, ErrorReason
from conductor_warehouse import schema
from conductor_warehouse.app import EventServiceSettings, application
from conductor_warehouse.events import Event, parse
from conductor_warehouse.settings import WarehouseSettings
from conductor_workbench.embedded import EmbeddedPostgres
from conductor_workbench.faults.network import HALF_OPEN, PARTITION, REPLIES_LOST, REQUESTS_LOST, Fault
from conductor_workbench.faults.proxy import Proxy
from machine import within
from warehouse.histories import events_of, random_history

BATCH = 5
PATIENCE_SECONDS = 2.0
"""Of the event service with a batch, and with a statement."""
LATE_SECONDS = 15.0
"""A check, a new connection and a batch may each take the patience; the client asks again; the machine is busy."""
FAULTS = (HALF_OPEN, REPLIES_LOST, PARTITION, REQUESTS_LOST)
SHORT_FORM = FAULTS[:1]


@pytest.fixture
def url(database_url: str) -> str:
    schema.migrate(database_url)
    return database_url


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_partition_before_postgres(
    embedded_postgres: EmbeddedPostgres, url: str, fault: Fault, seed: int, long_form: bool, figure: Any
) -> None:
    if fault not in SHORT_FORM and not long_form:
        pytest.skip("in the long form, with --duration")
    events = [_cloud_event(line) for line in events_of(random_history(seed=seed, count=60, tenants=("acme",)))]
    batches = [events[at : at + BATCH] for at in range(0, len(events), BATCH)]
    acknowledged: set[str] = set()
    took: list[float] = []
    async with served(embedded_postgres, url) as (client, proxy):

        async def publish(batch: list[CloudEvent]) -> bool:
            began = time.monotonic()
            try:
                told = await client.publish_events("acme", batch, timeout_seconds=60)
            except ConductorError as error:
                assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, ErrorReason.WAREHOUSE_UNAVAILABLE)
                return False
            finally:
                took.append(time.monotonic() - began)
            assert told.stored + told.duplicates == len(batch)
            acknowledged.update(event.id for event in batch)
            return True

        assert all([await publish(batch) for batch in batches[:4]])
        under_way = asyncio.gather(*(publish(batch) for batch in batches[4:8]))  # in the middle of what they do
        with proxy.suffering(fault):
            await under_way
            during = await asyncio.gather(*(publish(batch) for batch in batches[8:12]))
            known = await asyncio.to_thread(_inbox, url)
            assert acknowledged <= known
        healed = time.monotonic()
        while not await publish(batches[12]):
            assert time.monotonic() < healed + 60
        recovered = time.monotonic() - healed
        slowest = max(took)
        lost = acknowledged - _inbox(url)
        for batch in batches:
            assert await publish(batch)
        told = await client.publish_events("acme", events, timeout_seconds=60)
        assert (told.stored, told.duplicates) == (0, len(events)), "all of it is stored, once"
    figure(lost=f"{len(lost)} of {len(acknowledged)}", refused=during.count(False), slowest=slowest, back_in=recovered)
    assert not lost
    assert fault is HALF_OPEN or not any(during), "nothing gets through while it lasts"
    assert within(max(slowest, recovered), LATE_SECONDS)


@asynccontextmanager
async def served(postgres: EmbeddedPostgres, url: str) -> AsyncIterator[tuple[ConductorClient, Proxy]]:
    """An event service that reaches PostgreSQL through a proxy."""
    found = psycopg.conninfo.conninfo_to_dict(url)
    with Proxy(f"{found['host']}/.s.PGSQL.5432") as proxy:
        settings = WarehouseSettings(
            database_url=f"postgresql://{found['user']}@{proxy.target}/{found['dbname']}",
            publish_timeout_seconds=PATIENCE_SECONDS,
            publish_batch_seconds=PATIENCE_SECONDS,
        )
        async with (
            application(EventServiceSettings(port=0, insecure=True, grace_seconds=0), settings) as server,
            ConductorClient.connect(f"127.0.0.1:{server.port}", insecure=True) as client,
        ):
            yield client, proxy


def _cloud_event(line: bytes) -> CloudEvent:
    event = parse(line)
    assert isinstance(event, Event)
    message = CloudEvent(id=event.event_id, source=event.source, type=event.type, tenant_id=event.tenant_id)
    message.time.FromDatetime(event.time)
    message.proto_data.Pack(event.data)
    return message


def _inbox(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {event_id for (event_id,) in connection.execute("SELECT event_id FROM inbox")}
