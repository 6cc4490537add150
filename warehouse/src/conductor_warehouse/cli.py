"""``conductor ingest``, ``conductor events …`` and ``conductor warehouse …``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conductor_client.output import (
    FAILED,
    PARTLY,
    USAGE,
    OutputFormat,
    OutputOption,
    fail,
    print_record,
    print_rows,
)

if TYPE_CHECKING:
    from psycopg import Connection

    from conductor_rpc.telemetry import Telemetry
    from conductor_warehouse.app import EventServiceSettings
    from conductor_warehouse.ingestion import IngestResult
    from conductor_warehouse.settings import WarehouseSettings

DatabaseOption = Annotated[
    str | None, typer.Option(help="The warehouse, postgresql://…; else CONDUCTOR_DATABASE_URL.", show_default=False)
]
TenantOption = Annotated[str | None, typer.Option(help="Only this tenant.", show_default=False)]

events_commands = typer.Typer(help="Events that were taken in, and those that could not be.", no_args_is_help=True)
dead_letter_commands = typer.Typer(help="Events that could not be taken in.", no_args_is_help=True)
events_commands.add_typer(dead_letter_commands, name="dead-letter")
warehouse_commands = typer.Typer(help="The warehouse: schema, event service, tailing writer.", no_args_is_help=True)


def ingest(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="NDJSON or JSON array of CloudEvents, also .gz; - is stdin.")
    ],
    *,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant that all events must belong to; others become dead letters.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Events per transaction (default 1000).")] = None,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take events into the warehouse and compute the features that they touch.

    Safe to repeat: events that are stored already change nothing. Exit code 3 when some could not be taken in;
    `conductor events dead-letter list` shows them.

    \b
    Examples:
      conductor ingest events.ndjson
      conductor ingest 2026-01.ndjson.gz 2026-02.ndjson.gz --tenant acme
      zcat events.ndjson.gz | conductor ingest - -o json
    """
    from conductor_warehouse.bulk import ingest_many
    from conductor_warehouse.event_files import UnreadableFile
    from conductor_warehouse.ingestion import IngestResult

    missing = [file for file in files if file != "-" and not Path(file).is_file()]
    if missing:
        fail(f"no such file: {', '.join(missing)}", USAGE)
    settings = _settings(database_url=database_url, ingest_batch_size=batch_size)
    total = IngestResult()
    unreadable: list[str] = []
    with _connection(settings) as connection, _ingest_progress(files) as (events_of, show):
        for file in files:
            before = total.received
            try:
                result = ingest_many(
                    connection,
                    events_of(file),
                    tenant,
                    batch_size=settings.ingest_batch_size,
                    progress=lambda so_far, before=before: show(before + so_far.received),  # type: ignore[misc]
                )
            except (UnreadableFile, OSError) as error:
                unreadable.append(f"{file}: {error}")
                continue
            total.add(result)
    _print_result(total, output)
    if unreadable:
        fail("; ".join(unreadable), PARTLY if total.received else FAILED)
    if total.dead_letter_count:
        raise typer.Exit(PARTLY)


@dead_letter_commands.command("list")
def dead_letter_list(
    *,
    tenant: TenantOption = None,
    limit: Annotated[int, typer.Option(help="At most so many, oldest first.", min=1)] = 100,
    after: Annotated[int, typer.Option(help="Only those with a greater id.", min=0)] = 0,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List events that could not be taken in, with the reason.

    \b
    Example:
      conductor events dead-letter list --tenant acme --limit 20
    """
    from conductor_warehouse import dead_letters

    with _connection(_settings(database_url=database_url)) as connection:
        letters = dead_letters.find(connection, tenant_id=tenant, after=after, limit=limit)
    rows = [
        {
            "id": letter.dead_letter_id,
            "time": letter.dead_letter_time,
            "tenant": letter.tenant_id,
            "event_source": letter.event_source,
            "event_id": letter.event_id,
            "reason": letter.reason,
        }
        for letter in letters
    ]
    print_rows(rows, output, empty="No dead letters.")


@dead_letter_commands.command("show")
def dead_letter_show(
    dead_letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `list` tells it.")],
    *,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show one event that could not be taken in, as it came.

    \b
    Example:
      conductor events dead-letter show 17
    """
    from conductor_warehouse import dead_letters

    with _connection(_settings(database_url=database_url)) as connection:
        letters = dead_letters.find(connection, ids=[dead_letter_id])
    if not letters:
        fail(f"there is no dead letter {dead_letter_id}")
    [letter] = letters
    print_record(
        {
            "id": letter.dead_letter_id,
            "time": letter.dead_letter_time,
            "tenant": letter.tenant_id,
            "event_source": letter.event_source,
            "event_id": letter.event_id,
            "reason": letter.reason,
            "form": letter.form,
            "truncated": letter.truncated,
            "payload": letter.text,
        },
        output,
    )


@dead_letter_commands.command("requeue")
def dead_letter_requeue(
    dead_letter_ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]…", help="As `list` tells them.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    tenant: TenantOption = None,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Try again to take in dead letters, after an upgrade say. Exit code 3 when some still can't be.

    \b
    Examples:
      conductor events dead-letter requeue 17 18
      conductor events dead-letter requeue --all --tenant acme
    """
    from conductor_warehouse.ingestion import IngestResult, requeue

    if bool(dead_letter_ids) == every:
        fail("give ids, or --all", USAGE)
    total, after = IngestResult(), 0
    with _connection(_settings(database_url=database_url)) as connection:
        while True:
            result, last = requeue(connection, tenant_id=tenant, ids=dead_letter_ids or None, after=after)
            if last is None:
                break
            total.add(result)
            after = last
    _print_result(total, output)
    if total.dead_letter_count:
        raise typer.Exit(PARTLY)


@warehouse_commands.command()
def migrate(*, database_url: DatabaseOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """Bring the schema up to date. Safe to run twice, and from many processes at once.

    \b
    Example:
      conductor warehouse migrate --database-url postgresql://conductor@db/conductor
    """
    from conductor_warehouse import schema

    settings = _settings(database_url=database_url)
    with _database_errors():
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

    settings = _settings(database_url=database_url)
    with _database_errors():
        state = schema.status(settings.require_database_url())
    behind = []
    if state.current:
        with _connection(settings) as connection:
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
        str | None, typer.Option(help="The online store (default redis://127.0.0.1:6379/0).", show_default=False)
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

    import redis

    from conductor_rpc.server import configure_logging
    from conductor_warehouse.tailing_writer import TailingWriter

    settings = _settings(database_url=database_url, redis_url=redis_url)
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
        typer.echo(f"Carrying feature rows to {settings.redis_url}. Stop with Ctrl-C or SIGTERM.")
        writer.run(stop)
        return
    with _database_errors():
        try:
            writer.catch_up()
        except redis.RedisError as error:
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
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS, no tokens: on your own machine only")] = False,
    grace: Annotated[
        float | None, typer.Option(help="Seconds to go on serving after SIGTERM, as NOT_SERVING (default 1)")
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take events in by gRPC (EventService) until SIGTERM or Ctrl-C.

    Each option may come from the environment or from conductor.toml instead. Without TLS and JWKS it refuses to
    start, unless --insecure is said.

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

    warehouse_settings = _settings(database_url=database_url)
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
            insecure=insecure or None,
            grace_seconds=grace,
        )
        settings.require_security()
        configure_logging(settings.log_level)
        telemetry, close_telemetry = telemetry_from_environment("conductor-warehouse")
        try:
            with _database_errors():
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
            security = "insecure: no TLS, no tokens" if settings.insecure else f"TLS, tokens by {settings.issuer}"
            typer.echo(f"Taking events on {address} ({security}). Stop with Ctrl-C or SIGTERM.")
        await serve_until_signal(server)


def _settings(**flags: Any) -> WarehouseSettings:
    """Settings with a database; ends the command where they make no sense."""
    from pydantic import ValidationError

    from conductor_warehouse.settings import DatabaseNotConfigured, WarehouseSettings

    try:
        settings = WarehouseSettings.from_flags(**flags)
        settings.require_database_url()
    except (ValidationError, DatabaseNotConfigured) as error:
        fail(str(error), USAGE)
    return settings


@contextmanager
def _database_errors() -> Iterator[None]:
    import psycopg

    from conductor_warehouse.schema import SchemaMismatch

    try:
        yield
    except psycopg.errors.UndefinedTable:
        fail("the database lacks tables: run `conductor warehouse migrate`")
    except (psycopg.Error, SchemaMismatch) as error:
        fail(f"the warehouse: {error}")


@contextmanager
def _connection(settings: WarehouseSettings) -> Iterator[Connection[Any]]:
    import psycopg

    with _database_errors(), psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        yield connection


@contextmanager
def _ingest_progress(files: list[str]) -> Iterator[tuple[Any, Any]]:
    """A progress bar on standard error, by bytes read; yields (events of a file, show the number of events)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from conductor_warehouse.event_files import read_events

    sizes = {file: Path(file).stat().st_size for file in files if file != "-"}
    known = len(sizes) == len(files)
    columns = (
        TextColumn("Taking in events"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=sum(sizes.values()) if known else None, events=0)
        done = 0

        def events_of(file: str) -> Iterator[bytes]:
            nonlocal done
            if file == "-":
                yield from read_events(sys.stdin.buffer)
                return
            with Path(file).open("rb") as source:
                yield from read_events(source, lambda count: progress.update(task, completed=done + count))
            done += sizes[file]

        yield events_of, lambda count: progress.update(task, events=count)


def _print_result(result: IngestResult, output: OutputFormat) -> None:
    record: dict[str, object] = {
        "received": result.received,
        "stored": result.stored,
        "duplicates": result.duplicates,
        "dead_letters": result.dead_letter_count,
        "feature_rows": result.feature_rows,
    }
    if output is OutputFormat.JSON:
        record["first_dead_letters"] = [
            {
                "tenant": letter.tenant_id,
                "event_source": letter.source,
                "event_id": letter.event_id,
                "reason": letter.reason,
            }
            for letter in result.dead_letters
        ]
    print_record(record, output)
    if output is OutputFormat.TABLE:
        for letter in result.dead_letters[:5]:
            typer.echo(f"  {letter.event_id or '(no id)'}: {letter.reason}", err=True)
        if result.dead_letter_count > 5:
            typer.echo("  … `conductor events dead-letter list` shows all", err=True)
