"""``conductor features backfill``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_warehouse.cli.common import DatabaseOption, open_connection, open_settings

if TYPE_CHECKING:
    from conductor_warehouse.features.backfill import BackfillProgress


def backfill(
    view: Annotated[str, typer.Argument(help="View with its version, for example pipeline_builds_v2.")],
    *,
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", "-t", help="Only this tenant; may be repeated.", show_default=False)
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="From the beginning, whatever was done before.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only tell how far it is.")] = False,
    batch_size: Annotated[int, typer.Option(help="Events in a transaction, at most.", min=1)] = 1_000,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Give a view the rows that its history asks for, after a new version of it was installed.

    The old version serves, and events come in, meanwhile. Stopped or killed, it goes on where it was. Rows that are
    there already are not written again.

    \b
    Examples:
      conductor features backfill pipeline_builds_v2
      conductor features backfill pipeline_builds_v2 --status
    """
    from conductor_warehouse.features import backfill as history
    from conductor_warehouse.features.registry import DEFINITIONS

    if view not in DEFINITIONS:
        fail(f"no view {view!r}; there are {', '.join(DEFINITIONS)}", USAGE)
    with open_connection(open_settings(database_url=database_url)) as connection:
        if status:
            print_rows(history.status(connection, view), output, empty="No events yet.")
            return
        with _progress(view) as show:
            rows = history.backfill(
                connection, view, tenant or None, restart=restart, batch_size=batch_size, progress=show
            )
        finished = history.status(connection, view)
    print_record({"view": view, "rows": rows, "tenants": sum(one["finished"] is not None for one in finished)}, output)


@contextmanager
def _progress(view: str) -> Iterator[Callable[[BackfillProgress], None]]:
    """A line on standard error."""
    from rich.console import Console

    with Console(stderr=True).status(f"Backfilling {view}") as line:
        yield lambda so_far: line.update(
            f"Backfilling {view}: tenant {so_far.tenants_done + 1} of {so_far.tenants} ({so_far.tenant_id}),"
            f" {so_far.events:,} events, {so_far.rows:,} rows appended"
        )
