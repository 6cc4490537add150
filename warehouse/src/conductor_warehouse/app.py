"""The composition root of the event service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic import Field

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_rpc import names
from conductor_rpc.exceptions import WarehouseUnavailable
from conductor_rpc.server import RpcServer
from conductor_rpc.settings import RpcSettings
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_warehouse import schema
from conductor_warehouse.event_service import event_service
from conductor_warehouse.hanging import given_up_after, keepalive
from conductor_warehouse.ingestion import IngestResult, ingest
from conductor_warehouse.schema import SchemaMismatch
from conductor_warehouse.settings import WarehouseSettings
from conductor_warehouse.staging import FLOAT, TEXT, batch_of

_LOG = logging.getLogger(__name__)
_RECONNECT_SECONDS = 1.0


class EventServiceSettings(RpcSettings):
    """Settings of the event service's process: those of every gRPC process, on a port of its own."""

    port: int = Field(default=50052, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    max_message_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Largest request taken: a batch with a few large test runs."""


class Warehouse:
    """A bounded number of database connections, and threads that wait for them."""

    def __init__(self, settings: WarehouseSettings, telemetry: Telemetry = OFF) -> None:
        self._telemetry = telemetry
        IngestResult().tell(telemetry)
        self._timeout_seconds = settings.publish_timeout_seconds
        self._batch_seconds = settings.publish_batch_seconds
        self._pool = ConnectionPool(
            settings.require_database_url(),
            min_size=1,
            max_size=settings.publish_connection_count,
            timeout=settings.publish_timeout_seconds,
            kwargs={"autocommit": True, **keepalive(settings.publish_timeout_seconds)},
            configure=self._configure,
            check=self._check,
            # The pool doubles its pauses: without this a long outage would go on long after the database is back.
            reconnect_timeout=_RECONNECT_SECONDS,
            open=False,
        )

    async def ingest(self, events: Sequence[CloudEvent], tenant_id: str) -> IngestResult:
        """Store a batch of one tenant; returns after the commit.

        A caller who goes away does not stop a batch that has begun: it is stored whole, or not at all.

        Raises:
            WarehouseUnavailable: the database did not answer; nothing of the batch was acknowledged.
        """
        try:
            return await asyncio.to_thread(self._ingest, events, tenant_id)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            _LOG.warning("a batch of %d events was not stored: %s", len(events), error)
            raise WarehouseUnavailable from error

    async def open(self) -> None:
        """Begin to connect; does not wait for it, so that the service starts while the database is down."""
        await asyncio.to_thread(self._pool.open)
        # Arrow imports what it needs with its first array, which takes a second: not at the first caller's cost.
        await asyncio.to_thread(batch_of, {"text": TEXT, "number": FLOAT}, [("", 0.0)])

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._pool.close)

    def _ingest(self, events: Sequence[CloudEvent], tenant_id: str) -> IngestResult:
        with ExitStack() as stack:
            with self._telemetry.stage(names.INGEST_CONNECTION):
                connection = stack.enter_context(self._pool.connection())
            stack.enter_context(given_up_after(self._batch_seconds, connection))
            return ingest(connection, events, tenant_id, telemetry=self._telemetry)

    def _configure(self, connection: Connection[Any]) -> None:
        milliseconds = str(int(self._timeout_seconds * 1000))
        with given_up_after(self._timeout_seconds, connection):
            connection.execute("SELECT set_config('statement_timeout', %s, false)", (milliseconds,))

    def _check(self, connection: Connection[Any]) -> None:
        with given_up_after(self._timeout_seconds, connection):
            ConnectionPool.check_connection(connection)


@asynccontextmanager
async def application(
    settings: EventServiceSettings, warehouse_settings: WarehouseSettings, *, telemetry: Telemetry = OFF
) -> AsyncIterator[RpcServer]:
    """An event service that listens on ``server.port`` and stops, in reverse order of starting, on the way out.

    Raises:
        SettingsInvalid: the settings do not allow to serve.
        DatabaseNotConfigured: nobody said where the warehouse is.
        SchemaMismatch: the database lacks migrations.
        psycopg.Error: the database does not answer.
    """
    status = await asyncio.to_thread(schema.status, warehouse_settings.require_database_url())
    if not status.current:
        raise SchemaMismatch("the database lacks migrations: run `conductor warehouse migrate`")
    async with AsyncExitStack() as stack:
        warehouse = Warehouse(warehouse_settings, telemetry)
        stack.push_async_callback(warehouse.close)
        await warehouse.open()
        server = RpcServer(settings, [event_service(warehouse.ingest)], telemetry=telemetry)
        await server.start()
        stack.push_async_callback(server.stop)
        yield server
