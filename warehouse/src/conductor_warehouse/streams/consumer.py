"""Takes events from a stream into the warehouse, with the guarantees of every other way in.

Events are acknowledged after their commit. What a consumer that died had read comes again, and taking an event in twice
changes nothing. So no event is lost, and none is stored twice, wherever a consumer is killed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from conductor_rpc.telemetry import OFF, Telemetry
from conductor_warehouse.ingestion import IngestResult, ingest
from conductor_warehouse.streams.source import Batch, Source

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS = 0.1


class StreamConsumer:
    """One consumer of a group. Runs until it is told to stop, through restarts of the stream and of PostgreSQL."""

    def __init__(
        self,
        database_url: str,
        source: Source,
        *,
        retry_seconds: float = 5.0,
        tenant_id: str | None = None,
        progress: Callable[[IngestResult], None] = lambda _: None,
        telemetry: Telemetry = OFF,
    ) -> None:
        """
        Args:
            database_url: the warehouse; the tables' owner unless there is a ``tenant_id``.
            source: where the events come from.
            retry_seconds: longest pause between attempts while the stream or PostgreSQL does not answer.
            tenant_id: the tenant that all events must belong to; None takes any.
            progress: told, after each batch, what has become of the events so far.
            telemetry: told the same, and of the stages.
        """
        self._database_url, self._source = database_url, source
        self._retry_seconds = retry_seconds
        self._tenant_id, self._progress = tenant_id, progress
        self._telemetry = telemetry
        self.total = IngestResult()
        self.total.tell(telemetry)

    def run(self, stop: threading.Event) -> IngestResult:
        """Take events until ``stop`` is set; a batch under way is finished and acknowledged first."""
        pause = _FIRST_RETRY_SECONDS
        failures: tuple[type[Exception], ...] = (psycopg.Error, OSError, *self._source.failures)
        while not stop.is_set():
            try:
                # In this order: a consumer that can't store anything takes no part in its group.
                with (
                    psycopg.connect(self._database_url, autocommit=True, connect_timeout=5) as connection,
                    self._source as source,
                ):
                    for batch in source.batches():
                        if batch is not None:
                            self._take(connection, batch)
                        pause = _FIRST_RETRY_SECONDS
                        if stop.is_set():
                            break
            except failures as error:
                _LOG.warning(
                    "events are not taken from %s, trying again in %.1f s: %s", self._source.name, pause, error
                )
                stop.wait(pause)
                pause = min(2 * pause, self._retry_seconds)
        return self.total

    def _take(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        """Store the events, then acknowledge them."""
        if batch.events:
            self.total.add(ingest(connection, batch.events, self._tenant_id, telemetry=self._telemetry))
        batch.acknowledge()
        self._progress(self.total)
