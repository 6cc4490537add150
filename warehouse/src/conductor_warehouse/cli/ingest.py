"""``conductor ingest``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from conductor_client.output import FAILED, PARTLY, USAGE, OutputFormat, OutputOption, fail
from conductor_warehouse.cli.common import DatabaseOption, open_connection, open_settings, print_result
from conductor_warehouse.data_quality.mode import Mode


def ingest(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="NDJSON or JSON array of CloudEvents, also .gz; - is stdin.")
    ],
    *,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant that all events must belong to; others become dead letters.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Events per transaction (default 5000).")] = None,
    quality: Annotated[
        Mode,
        typer.Option(help="A batch that looks wrong as a whole: park it, only record that, or do not look (off)."),
    ] = Mode.PARK,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take events into the warehouse and compute the features that they touch.

    Safe to repeat: events that are stored already change nothing. Exit code 3 when some could not be taken in:
    `conductor events dead-letter list` shows them, and `conductor quality parked list` batches that look wrong as a
    whole, a thousand times shorter builds say, of which nothing was taken in.

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
    settings = open_settings(database_url=database_url, ingest_batch_size=batch_size)
    total = IngestResult()
    unreadable: list[str] = []
    with open_connection(settings) as connection, _ingest_progress(files) as (events_of, show):
        for file in files:
            before = total.received
            try:
                result = ingest_many(
                    connection,
                    events_of(file),
                    tenant,
                    batch_size=settings.ingest_batch_size,
                    mode=quality,
                    progress=lambda so_far, before=before: show(before + so_far.received),  # type: ignore[misc]
                )
            except (UnreadableFile, OSError) as error:
                unreadable.append(f"{file}: {error}")
                continue
            total.add(result)
    print_result(total, output)
    if unreadable:
        fail("; ".join(unreadable), PARTLY if total.received else FAILED)
    if total.dead_letter_count or total.parked:
        raise typer.Exit(PARTLY)


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
