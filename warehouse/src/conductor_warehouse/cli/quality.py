"""``conductor quality …``."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import PARTLY, USAGE, OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_warehouse.cli.common import DatabaseOption, TenantOption, open_connection, open_settings, print_result

if TYPE_CHECKING:
    from conductor_warehouse.data_quality.parked_batches import ParkedBatch
    from conductor_warehouse.data_quality.report import QualityReport

quality_commands = typer.Typer(
    help="What incoming events look like, and batches that look wrong.", no_args_is_help=True
)
parked_commands = typer.Typer(help="Batches that were put aside as a whole.", no_args_is_help=True)
quality_commands.add_typer(parked_commands, name="parked")

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="As `list` tells it.")]


@quality_commands.command("report")
def quality_report(
    *,
    tenant: Annotated[str, typer.Option(help="Whose data.")],
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day of receipt (UTC); else six days before the last."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day of receipt (UTC); else today.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as a page to this file.", dir_okay=False, show_default=False)
    ] = None,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Report a tenant's incoming data: completeness, ranges, distributions against the period before, what was wrong.

    \b
    Examples:
      conductor quality report --tenant acme
      conductor quality report --tenant acme --since 2026-11-01 --until 2026-11-30 --html quality.html
      conductor quality report --tenant acme -o json
    """
    from conductor_warehouse.data_quality import report, report_page

    last = until.date() if until else datetime.now(UTC).date()
    first: date = since.date() if since else last - timedelta(days=6)
    with open_connection(open_settings(database_url=database_url)) as connection:
        try:
            made = report.make(connection, tenant, first, last)
        except ValueError as error:
            fail(str(error), USAGE)
    if html is not None:
        partial = html.with_name(f".{html.name}.part")
        try:
            partial.write_text(report_page.to_html(made), encoding="utf-8")
            partial.replace(html)
        except OSError as error:
            fail(f"{html}: {error.strerror}")
    if output is OutputFormat.JSON:
        print_record(made.to_json(), output)
    else:
        _print_report(made, output)


def _print_report(made: QualityReport, output: OutputFormat) -> None:
    print_rows(
        [
            {
                "type": one.event_type,
                "received": one.received,
                "stored": one.stored,
                "duplicates": one.duplicates,
                "first": one.first_time,
                "last": one.last_time,
                "changed_fields": ", ".join(
                    field.name for field in one.fields if field.stability_index and field.stability_index > 0.25
                ),
            }
            for one in made.types
        ],
        output,
        empty=f"Nothing came in from {made.tenant_id} from {made.first_day} to {made.last_day}.",
    )
    names = ("date", "severity", "event_type", "field", "check", "batches", "message")
    print_rows([{name: one[name] for name in names} for one in made.findings], output, empty="No findings.")
    if made.dead_letters or made.parked:
        typer.echo(f"{made.dead_letters} dead letters, {len(made.parked)} parked batches", err=True)


@parked_commands.command("list")
def parked_list(
    *,
    tenant: TenantOption = None,
    every: Annotated[bool, typer.Option("--all", help="Those that were released or discarded as well.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, oldest first.", min=1)] = 100,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List batches that were put aside as a whole, with the reason.

    \b
    Example:
      conductor quality parked list --tenant acme
    """
    from conductor_warehouse.data_quality import parked_batches

    with open_connection(open_settings(database_url=database_url)) as connection:
        found = parked_batches.find(connection, tenant_id=tenant, status=None if every else "parked", limit=limit)
    print_rows([_row(batch) for batch in found], output, empty="No parked batches.")


@parked_commands.command("show")
def parked_show(
    parked_batch_id: IdArgument,
    *,
    events: Annotated[int, typer.Option(help="So many of its events.", min=0)] = 3,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show why a batch was put aside, and some of its events.

    \b
    Example:
      conductor quality parked show 4 --events 10
    """
    from conductor_warehouse.data_quality import parked_batches

    with open_connection(open_settings(database_url=database_url)) as connection:
        found = parked_batches.find(connection, ids=[parked_batch_id], status=None)
        if not found:
            fail(f"there is no parked batch {parked_batch_id}")
        sample = parked_batches.sample(connection, found[0], events)
    print_record(
        {**_row(found[0]), "types": found[0].event_counts, "findings": found[0].findings, "events_shown": sample},
        output,
    )


@parked_commands.command("release")
def parked_release(
    parked_batch_id: IdArgument,
    *,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take a batch in after all: its data are right. Exit code 3 when some of its events can't be taken in.

    \b
    Example:
      conductor quality parked release 4
    """
    from conductor_warehouse.data_quality import parked_batches

    with open_connection(open_settings(database_url=database_url)) as connection:
        try:
            result = parked_batches.release(connection, parked_batch_id)
        except parked_batches.NotParked as error:
            fail(str(error))
    print_result(result, output)
    if result.dead_letter_count:
        raise typer.Exit(PARTLY)


@parked_commands.command("discard")
def parked_discard(
    parked_batch_id: IdArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Forget the events of a batch: its data are wrong, and will be sent again. That it was there stays known.

    \b
    Example:
      conductor quality parked discard 4 --yes
    """
    from conductor_warehouse.data_quality import parked_batches

    if not yes:
        typer.confirm(f"Forget the events of batch {parked_batch_id}?", abort=True)
    with open_connection(open_settings(database_url=database_url)) as connection:
        try:
            batch = parked_batches.discard(connection, parked_batch_id)
        except parked_batches.NotParked as error:
            fail(str(error))
    print_record({**_row(batch), "status": "discarded"}, output)


def _row(batch: ParkedBatch) -> dict[str, object]:
    return {
        "id": batch.parked_batch_id,
        "tenant": batch.tenant_id,
        "status": batch.status,
        "events": batch.event_count,
        "first": batch.first_event_time,
        "last": batch.last_event_time,
        "parked": batch.parked_time,
        "reason": batch.reason,
    }
