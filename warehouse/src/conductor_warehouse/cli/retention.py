"""``conductor warehouse retention …``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_warehouse.cli.common import DatabaseOption, open_connection, open_settings

retention_commands = typer.Typer(help="How long tenants' data are kept.", no_args_is_help=True)
TenantArgument = Annotated[
    str, typer.Argument(metavar="TENANT", help="A tenant; '*' is all without a rule of their own.")
]


@retention_commands.command()
def show(*, database_url: DatabaseOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show each tenant\'s retention. Who is not there keeps everything, unless `*` is.

    \b
    Example:
      conductor warehouse retention show -o json
    """
    from conductor_warehouse import retention

    with open_connection(open_settings(database_url=database_url)) as connection:
        rows = [{"tenant": tenant, "days": span.days} for tenant, span in retention.show(connection).items()]
    print_rows(rows, output, empty="Everything is kept.")


@retention_commands.command("set")
def put(
    tenant: TenantArgument,
    duration: Annotated[str, typer.Argument(metavar="DURATION", help="Days or weeks, for example 90d or 52w.")],
    *,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Set how long a tenant\'s data are kept. What is older goes at the next `run`.

    \b
    Examples:
      conductor warehouse retention set acme 90d
      conductor warehouse retention set \'*\' 104w
    """
    from conductor_warehouse import retention

    span = re.fullmatch(r"([1-9][0-9]{0,4})([dw])", duration)
    if span is None:
        fail(f"{duration!r} is not a number of days (90d) or weeks (52w)", USAGE)
    kept = timedelta(days=int(span[1]) * (7 if span[2] == "w" else 1))
    with open_connection(open_settings(database_url=database_url)) as connection:
        retention.put(connection, tenant, kept)
    print_record({"tenant": tenant, "days": kept.days}, output)


@retention_commands.command()
def clear(tenant: TenantArgument, *, database_url: DatabaseOption = None) -> None:
    """Forget a tenant\'s retention.

    \b
    Example:
      conductor warehouse retention clear acme
    """
    from conductor_warehouse import retention

    with open_connection(open_settings(database_url=database_url)) as connection:
        if not retention.clear(connection, tenant):
            fail(f"{tenant} has no retention of its own")


@retention_commands.command()
def run(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Delete what no tenant keeps any more. Safe to repeat and to interrupt.

    \b
    Examples:
      conductor warehouse retention run --dry-run
      conductor warehouse retention run -o json
    """
    from conductor_warehouse import retention

    def told(deleted: retention.Deleted) -> None:
        if output is OutputFormat.TABLE:
            typer.echo(f"{deleted.table}: {deleted.rows} rows, {deleted.partitions} partitions", err=True)

    with open_connection(open_settings(database_url=database_url)) as connection:
        found = retention.run(connection, dry_run=dry_run, progress=told)
    print_rows([vars(deleted) for deleted in found], output, empty="Nothing is kept by time.")
