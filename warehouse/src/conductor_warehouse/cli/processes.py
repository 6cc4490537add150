"""``conductor warehouse tail`` and ``consume``: processes that run until they are stopped and take no calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail
from conductor_client.redaction import redacted
from conductor_warehouse.cli.common import DatabaseOption, TenantOption, database_errors, open_settings, print_result

if TYPE_CHECKING:
    from conductor_rpc.telemetry import Telemetry
    from conductor_warehouse.settings import WarehouseSettings
    from conductor_warehouse.tailing_writer import TailingWriter

AdminPortOption = Annotated[
    int | None, typer.Option(help="Port of /livez, /readyz, /metrics by HTTP (default none)", show_default=False)
]


def tail(
    *,
    database_url: DatabaseOption = None,
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="The online store (default redis://127.0.0.1:6379/0; a cluster: redis+cluster://host:port).",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Carry what is there now, and end.")] = False,
    admin_http_port: AdminPortOption = None,
) -> None:
    """Carry feature rows from the warehouse to Redis until SIGTERM or Ctrl-C.

    Survives restarts of both. A Redis that lost its data gets the latest rows again. Of several, one works.

    \b
    Examples:
      conductor warehouse tail --redis-url redis://cache:6379/0
      conductor warehouse tail --admin-http-port 9465
    """
    import signal
    import threading

    from conductor_features.clients import FAILURES
    from conductor_rpc.logs import configure_logging
    from conductor_rpc.telemetry import OFF
    from conductor_warehouse.tailing_writer import TailingWriter

    settings = open_settings(database_url=database_url, redis_url=redis_url, admin_http_port=admin_http_port)
    configure_logging(settings)

    def writer_with(telemetry: Telemetry) -> TailingWriter:
        return TailingWriter(
            settings.require_database_url(),
            settings.redis_url,
            batch_size=settings.tail_batch_size,
            poll_seconds=settings.tail_poll_seconds,
            retry_seconds=settings.tail_retry_seconds,
            telemetry=telemetry,
        )

    if not once:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        typer.echo(f"Carrying feature rows to {redacted(settings.redis_url)}. Stop with Ctrl-C or SIGTERM.")
        with _telemetry("conductor-tail", settings) as telemetry:
            writer_with(telemetry).run(stop)
        return
    writer = writer_with(OFF)
    with database_errors():
        try:
            writer.catch_up()
        except FAILURES as error:
            fail(f"Redis: {error}")


def consume(
    *,
    stream: Annotated[
        str | None, typer.Option(help="Key of the stream (default conductor:events), or Kafka's topic.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Consumer group, shared by all that share the work.")] = None,
    name: Annotated[str | None, typer.Option(help="This consumer's own name (default: the host's name).")] = None,
    stream_url: Annotated[
        str | None,
        typer.Option(help="redis://…, rediss://… or kafka://host:port,host:port; else CONDUCTOR_EVENT_STREAM_URL."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Events per transaction (default 5000).")] = None,
    tenant: TenantOption = None,
    database_url: DatabaseOption = None,
    admin_http_port: AdminPortOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take events from a Redis Stream or a Kafka topic into the warehouse until SIGTERM or Ctrl-C.

    An entry of Redis holds one CloudEvent as JSON in its field `event`, a message of Kafka in its value. It is
    acknowledged after the commit, and removed from Redis. Several consumers share a stream; what one that died had
    read goes to the others.

    \b
    Examples:
      conductor warehouse consume --stream-url redis://queue:6379/0 --stream conductor:events
      conductor warehouse consume --stream-url kafka://broker:9092 --stream conductor-events
      redis-cli XADD conductor:events '*' event "$(head -1 events.ndjson)"
    """
    import signal
    import threading

    from conductor_rpc.logs import configure_logging
    from conductor_warehouse.streams.consumer import StreamConsumer
    from conductor_warehouse.streams.selection import source_of
    from conductor_warehouse.streams.source import StreamInvalid

    settings = open_settings(
        database_url=database_url,
        event_stream_url=stream_url,
        event_stream=stream,
        event_stream_group=group,
        event_stream_consumer=name,
        ingest_batch_size=batch_size,
        admin_http_port=admin_http_port,
    )
    configure_logging(settings)
    try:
        source = source_of(settings)
    except StreamInvalid as error:
        fail(str(error), USAGE)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    typer.echo(f"Taking events from {source.name}. Stop with Ctrl-C or SIGTERM.", err=True)
    with _telemetry("conductor-consumer", settings) as telemetry:
        consumer = StreamConsumer(
            settings.require_database_url(),
            source,
            retry_seconds=settings.tail_retry_seconds,
            tenant_id=tenant,
            telemetry=telemetry,
        )
        print_result(consumer.run(stop), output)


@contextmanager
def _telemetry(name: str, settings: WarehouseSettings) -> Iterator[Telemetry]:
    """Telemetry of a command that runs until it is stopped; a port that is taken ends it with a clear text."""
    from conductor_rpc.admin.beside import telemetry_beside
    from conductor_rpc.settings import SettingsInvalid

    try:
        with telemetry_beside(name, settings.admin_host, settings.admin_http_port, lambda: True) as telemetry:
            yield telemetry
    except SettingsInvalid as error:
        fail(str(error), USAGE)
