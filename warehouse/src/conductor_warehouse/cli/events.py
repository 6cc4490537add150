"""``conductor events …``."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor_client.output import PARTLY, USAGE, OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_warehouse.cli.common import DatabaseOption, TenantOption, open_connection, open_settings, print_result

events_commands = typer.Typer(help="Events that were taken in, and those that could not be.", no_args_is_help=True)
dead_letter_commands = typer.Typer(help="Events that could not be taken in.", no_args_is_help=True)
events_commands.add_typer(dead_letter_commands, name="dead-letter")


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

    with open_connection(open_settings(database_url=database_url)) as connection:
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

    with open_connection(open_settings(database_url=database_url)) as connection:
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
    with open_connection(open_settings(database_url=database_url)) as connection:
        while True:
            result, last = requeue(connection, tenant_id=tenant, ids=dead_letter_ids or None, after=after)
            if last is None:
                break
            total.add(result)
            after = last
    print_result(total, output)
    if total.dead_letter_count:
        raise typer.Exit(PARTLY)
