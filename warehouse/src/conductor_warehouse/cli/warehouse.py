"""``conductor warehouse …``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import FAILED, USAGE, OutputFormat, OutputOption, fail, print_record
from conductor_rpc.options import (
    ApiKeysOption,
    AudienceOption,
    AuditFileOption,
    CertificateIdentitiesOption,
    GraceOption,
    HostOption,
    InsecureOption,
    IssuerOption,
    JwksOption,
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
)
from conductor_warehouse.cli.common import (
    DatabaseOption,
    database_errors,
    open_connection,
    open_settings,
)
from conductor_warehouse.cli.processes import consume, tail
from conductor_warehouse.cli.retention import retention_commands

if TYPE_CHECKING:
    from conductor_rpc.telemetry import Telemetry
    from conductor_warehouse.app import EventServiceSettings
    from conductor_warehouse.settings import WarehouseSettings

warehouse_commands = typer.Typer(help="The warehouse: schema, event service, tailing writer.", no_args_is_help=True)
warehouse_commands.add_typer(retention_commands, name="retention")
warehouse_commands.command()(tail)
warehouse_commands.command()(consume)


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
    from conductor_warehouse.cursors import lags

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
def serve(
    *,
    host: HostOption = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (default 50052)")] = None,
    database_url: DatabaseOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    jwks: JwksOption = None,
    issuer: IssuerOption = None,
    audience: AudienceOption = None,
    api_keys: ApiKeysOption = None,
    certificate_identities: CertificateIdentitiesOption = None,
    audit_file: AuditFileOption = None,
    insecure: InsecureOption = False,
    grace: GraceOption = None,
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
    from conductor_rpc.logs import configure_logging
    from conductor_rpc.server import run
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
        configure_logging(settings)
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
