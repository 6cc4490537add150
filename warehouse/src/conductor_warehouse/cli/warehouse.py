"""``conductor warehouse …``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import FAILED, USAGE, OutputFormat, OutputOption, fail, print_record
from conductor_client.redaction import redacted
from conductor_warehouse.cli.common import (
    DatabaseOption,
    TenantOption,
    database_errors,
    open_connection,
    open_settings,
    print_result,
)
from conductor_warehouse.cli.retention import retention_commands

if TYPE_CHECKING:
    from conductor_rpc.telemetry import Telemetry
    from conductor_warehouse.app import EventServiceSettings
    from conductor_warehouse.settings import WarehouseSettings

warehouse_commands = typer.Typer(help="The warehouse: schema, event service, tailing writer.", no_args_is_help=True)
warehouse_commands.add_typer(retention_commands, name="retention")


@warehouse_commands.command()
def migrate(*, database_url: DatabaseOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """Bring the schema up to date. Safe to run twice, and from many processes at once.

    \b
    Example:
      conductor warehouse migrate --database-url postgresql://conductor@db/conductor
    """
    from conductor_warehouse import schema

    settings = open_settings(database_url=database_url)
    with database_errors():
        before = schema.migrate(settings.require_database_url())
    print_record(
        {"applied_now": list(before.pending), "logs_made_now": list(before.views_without_log)},
        output,
    )


@warehouse_commands.command()
def status(*, database_url: DatabaseOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show what the database has, what it lacks, and how far the online store is behind. Exit code 1 if it lacks any.

    \b
    Example:
      conductor warehouse status -o json
    """
    from conductor_warehouse import schema
    from conductor_warehouse.tailing_writer import lags

    settings = open_settings(database_url=database_url)
    with database_errors():
        state = schema.status(settings.require_database_url())
    behind = []
    if state.current:
        with open_connection(settings) as connection:
            behind = lags(connection)
    print_record(
        {
            "current": state.current,
            "applied": list(state.applied),
            "pending": list(state.pending),
            "views_without_log": list(state.views_without_log),
            "rows_not_online": sum(lag.rows for lag in behind),
            "seconds_behind": max((lag.seconds for lag in behind), default=0.0),
        },
        output,
    )
    if not state.current:
        raise typer.Exit(FAILED)


@warehouse_commands.command()
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
) -> None:
    """Carry feature rows from the warehouse to Redis until SIGTERM or Ctrl-C.

    Survives restarts of both. A Redis that lost its data gets the latest rows again. Of several, one works.

    \b
    Example:
      conductor warehouse tail --redis-url redis://cache:6379/0
    """
    import signal
    import threading

    from conductor_features.clients import FAILURES
    from conductor_rpc.server import configure_logging
    from conductor_warehouse.tailing_writer import TailingWriter

    settings = open_settings(database_url=database_url, redis_url=redis_url)
    configure_logging("INFO")
    writer = TailingWriter(
        settings.require_database_url(),
        settings.redis_url,
        batch_size=settings.tail_batch_size,
        poll_seconds=settings.tail_poll_seconds,
        retry_seconds=settings.tail_retry_seconds,
    )
    if not once:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        typer.echo(f"Carrying feature rows to {redacted(settings.redis_url)}. Stop with Ctrl-C or SIGTERM.")
        writer.run(stop)
        return
    with database_errors():
        try:
            writer.catch_up()
        except FAILURES as error:
            fail(f"Redis: {error}")


@warehouse_commands.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (default 50052)")] = None,
    database_url: DatabaseOption = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate chain")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the private key")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Take only clients with a certificate by this CA")] = None,
    jwks: Annotated[str | None, typer.Option(help="Keys of the tokens: a JWKS file or https:// address")] = None,
    issuer: Annotated[str | None, typer.Option(help="Issuer that tokens must come from")] = None,
    audience: Annotated[str | None, typer.Option(help="Audience of the tokens (default conductor)")] = None,
    api_keys: Annotated[Path | None, typer.Option(help="File of API keys, see `conductor keys`")] = None,
    certificate_identities: Annotated[
        Path | None, typer.Option(help="TOML file: whom a client's certificate stands for; needs --tls-client-ca")
    ] = None,
    audit_file: Annotated[
        Path | None, typer.Option(help="File that administrative calls are noted in (default: standard error)")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS, no credentials: on your own machine only")
    ] = False,
    grace: Annotated[
        float | None, typer.Option(help="Seconds to go on serving after SIGTERM, as NOT_SERVING (default 1)")
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take events in by gRPC (EventService) until SIGTERM or Ctrl-C.

    Each option may come from the environment or from conductor.toml instead. Without TLS and credentials
    (JWKS, API keys or client certificates) it refuses to start, unless --insecure is said.

    \b
    Examples:
      conductor warehouse serve --insecure
      conductor warehouse serve --tls-cert server.pem --tls-key server.key --jwks jwks.json --issuer https://id.example
    """
    from pydantic import ValidationError

    from conductor_rpc.exporters import telemetry_from_environment
    from conductor_rpc.server import configure_logging, run
    from conductor_rpc.settings import SettingsInvalid
    from conductor_warehouse.app import EventServiceSettings

    warehouse_settings = open_settings(database_url=database_url)
    try:
        settings = EventServiceSettings.from_flags(
            host=host,
            port=port,
            tls_certificate_file=tls_cert,
            tls_key_file=tls_key,
            tls_client_ca_file=tls_client_ca,
            jwks=jwks,
            issuer=issuer,
            audience=audience,
            api_keys_file=api_keys,
            certificate_identities_file=certificate_identities,
            audit_file=audit_file,
            insecure=insecure or None,
            grace_seconds=grace,
        )
        settings.require_security()
        configure_logging(settings.log_level)
        telemetry, close_telemetry = telemetry_from_environment(
            "conductor-warehouse",
            prometheus=settings.admin_http_port is not None,
            slow_seconds=settings.trace_slow_seconds,
        )
        try:
            with database_errors():
                run(_serve(settings, warehouse_settings, telemetry, output))
        finally:
            close_telemetry()
    except (SettingsInvalid, ValidationError) as error:
        fail(str(error), USAGE)


async def _serve(
    settings: EventServiceSettings, warehouse_settings: WarehouseSettings, telemetry: Telemetry, output: OutputFormat
) -> None:
    import json

    from conductor_rpc.server import serve_until_signal
    from conductor_warehouse.app import application

    async with application(settings, warehouse_settings, telemetry=telemetry) as server:
        address = f"{settings.host}:{server.port}"
        if output is OutputFormat.JSON:
            typer.echo(json.dumps({"address": address, "insecure": settings.insecure}))
        else:
            typer.echo(f"Taking events on {address} ({settings.describe_security()}). Stop with Ctrl-C or SIGTERM.")
        await serve_until_signal(server)


@warehouse_commands.command()
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

    from conductor_rpc.server import configure_logging
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
    )
    configure_logging("INFO")
    try:
        source = source_of(settings)
    except StreamInvalid as error:
        fail(str(error), USAGE)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    typer.echo(f"Taking events from {source.name}. Stop with Ctrl-C or SIGTERM.", err=True)
    consumer = StreamConsumer(
        settings.require_database_url(), source, retry_seconds=settings.tail_retry_seconds, tenant_id=tenant
    )
    print_result(consumer.run(stop), output)


@warehouse_commands.command()
def refresh(*, database_url: DatabaseOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """Settle the statistics that have changed. They are right without it, and read faster after it.

    The tailing writer does so by itself; with TimescaleDB a policy does.

    \b
    Example:
      conductor warehouse refresh
    """
    from conductor_warehouse import statistics

    with open_connection(open_settings(database_url=database_url)) as connection:
        print_record({"refreshed": statistics.refresh(connection)}, output)
