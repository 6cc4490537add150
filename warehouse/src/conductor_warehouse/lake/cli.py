"""`conductor lake`: the history as Parquet files, and which versions of it there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows

if TYPE_CHECKING:
    from conductor_warehouse.lake.catalogue import Lake
    from conductor_warehouse.lake.export import ExportProgress

commands = typer.Typer(no_args_is_help=True, help="Export the warehouse's history to Parquet files, and check them.")

LakeOption = Annotated[
    str | None,
    typer.Option(
        "--lake",
        help="Path or URL (s3://bucket/prefix) of the lake; else CONDUCTOR_LAKE, conductor.toml or .conductor/lake.",
    ),
]
TenantOption = Annotated[
    list[str] | None, typer.Option("--tenant", "-t", help="Only this tenant; may be repeated.", show_default=False)
]
TableOption = Annotated[
    list[str] | None, typer.Option("--table", help="Only this table; may be repeated.", show_default=False)
]
VersionOption = Annotated[
    str | None,
    typer.Option("--version", help="Its first six digits or more; else the one in force.", show_default=False),
]


@commands.command("export")
def export_lake(
    *,
    tenant: TenantOption = None,
    table: TableOption = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="How far back history goes that is new to the lake; what it has already stays current.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything again, not only what has changed.")] = False,
    lake: LakeOption = None,
    database_url: Annotated[
        str | None, typer.Option(help="The warehouse, postgresql://…; else CONDUCTOR_DATABASE_URL.", show_default=False)
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Bring the lake up to date with what was committed since the last export.

    Safe to repeat and to interrupt: the next export goes on where this one was. Days that were corrected are written
    anew; older versions keep the old files until `conductor lake vacuum`.

    \b
    Examples:
      conductor lake export
      conductor lake export --lake s3://history/conductor --tenant acme --since 2026-01-01 -o json
    """
    import psycopg

    from conductor_warehouse.lake.export import export
    from conductor_warehouse.settings import DatabaseNotConfigured, WarehouseSettings

    try:
        url = WarehouseSettings.from_flags(database_url=database_url).require_database_url()
        with _opened(lake) as opened, _progress() as show:
            result = export(
                opened,
                url,
                tables=table or None,
                tenants=tenant or None,
                since=since.date() if since else None,
                full=full,
                progress=show,
            )
    except (DatabaseNotConfigured, ValueError) as error:
        fail(str(error), USAGE)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction):
        fail("the database lacks tables: run `conductor warehouse migrate`")
    except psycopg.Error as error:
        fail(f"the warehouse: {error}")
    print_record(
        {
            "version": result.version,
            "generation": result.generation,
            "changed": not result.unchanged,
            "parts": result.parts,
            "resumed_parts": result.resumed,
            "files": result.files,
            "rows": result.rows,
            "bytes": result.size_bytes,
        },
        output,
    )


@commands.command("list")
def list_lake(
    *,
    tenant: TenantOption = None,
    table: TableOption = None,
    version: VersionOption = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="The versions, newest first, not their content.")
    ] = False,
    files: Annotated[bool, typer.Option("--files", help="Every file.")] = False,
    lake: LakeOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show what the lake holds: tables by tenant with their range, rows, schema and digest; or its versions.

    \b
    Examples:
      conductor lake list --tenant acme
      conductor lake list --versions -o json
      conductor lake list --version 0123456789abcdef --table builds --files
    """
    from conductor_warehouse.lake.errors import LakeCorrupt

    rows: list[dict[str, object]] = []
    with _opened(lake) as opened:
        if versions:
            for number in sorted(opened.generations(), reverse=True):
                try:
                    generation = opened.generation(number)
                    _, content = opened.version(generation.version)
                except LakeCorrupt as error:
                    rows.append(_version_row(number, "", None, None, None, str(error)))
                    continue
                rows.append(
                    _version_row(
                        number,
                        generation.version,
                        generation.exported_time,
                        sum(entry.rows for entry in content.entries),
                        sum(entry.size_bytes for entry in content.entries),
                        "",
                    )
                )
            print_rows(rows, output, empty="Nothing was exported to this lake yet.")
            return
        for entry in opened.version(version)[1].entries:
            if (table and entry.table not in table) or (tenant and entry.tenant_id not in tenant):
                continue
            part: dict[str, object] = {"table": entry.table, "tenant": entry.tenant_id}
            if files:
                rows += [
                    part
                    | {
                        "date": file.day.isoformat(),
                        "rows": file.rows,
                        "bytes": file.size_bytes,
                        "schema": file.schema_version,
                        "digest": file.digest,
                        "key": file.key,
                    }
                    for file in opened.files(entry).files
                ]
            else:
                rows.append(
                    part
                    | {
                        "first": entry.first_day.isoformat() if entry.first_day else None,
                        "last": entry.last_day.isoformat() if entry.last_day else None,
                        "files": entry.files,
                        "rows": entry.rows,
                        "bytes": entry.size_bytes,
                        "schema": ", ".join(entry.schema_versions),
                        "digest": entry.files_digest if output is OutputFormat.JSON else entry.files_digest[:16],
                    }
                )
        print_rows(rows, output, empty="The lake holds nothing like that.")


@commands.command("verify")
def verify_lake(
    *,
    tenant: TenantOption = None,
    table: TableOption = None,
    version: VersionOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every version that is stored.")] = False,
    lake: LakeOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read every file of the version in force and check digests, rows and columns. Exit code 1 if anything is damaged.

    \b
    Examples:
      conductor lake verify
      conductor lake verify --all --lake s3://history/conductor
    """
    from conductor_warehouse.lake.verification import verify

    with _opened(lake) as opened:
        chosen = opened.versions() if every else [opened.version(version)[0]] if version else None
        findings = list(verify(opened, chosen, tables=table or None, tenants=tenant or None))
        damaged = [finding for finding in findings if finding.problem]
        if output is OutputFormat.JSON or damaged:
            print_rows([{"checked": finding.subject, "problem": finding.problem} for finding in damaged], output)
        if damaged:
            fail(f"{len(damaged)} of {len(findings)} are damaged: `conductor lake export --full` writes them anew")
        typer.echo(f"{len(findings)} checked, none damaged.", err=True)


@commands.command("vacuum")
def vacuum_lake(
    *,
    days: Annotated[float, typer.Option(help="Keep what was in force within so many days.", min=1 / 24)] = 30.0,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Keep this version, as a model names it; may be repeated.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    lake: LakeOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Delete files that only older versions need, and those that killed exports left.

    \b
    Example:
      conductor lake vacuum --days 7 --keep 0123456789abcdef
    """
    from conductor_warehouse.lake.vacuum import vacuum

    with _opened(lake) as opened:
        found = vacuum(opened, timedelta(days=days), keep=keep or (), dry_run=dry_run)
    print_record(
        {
            "generations": found.generations,
            "versions": found.versions,
            "files": found.files,
            "bytes": found.size_bytes,
            "deleted": not dry_run,
        },
        output,
    )


def _version_row(
    number: int, version: str, exported: datetime | None, rows: int | None, size: int | None, problem: str
) -> dict[str, object]:
    return {
        "generation": number,
        "version": version,
        "exported": exported,
        "rows": rows,
        "bytes": size,
        "problem": problem,
    }


@contextmanager
def _opened(location: str | None) -> Iterator[Lake]:
    """Open the lake of the option or the settings; its errors end the command with one line."""
    from conductor_warehouse.lake.catalogue import Lake
    from conductor_warehouse.lake.errors import LakeError
    from conductor_warehouse.lake.settings import LakeSettings

    try:
        yield Lake.open(location or LakeSettings().lake)
    except LakeError as error:
        fail(str(error))


@contextmanager
def _progress() -> Iterator[_Show]:
    """A progress bar on standard error."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("Exporting"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[what]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=None, rows=0, what="looking for changes")
        yield lambda so_far: progress.update(
            task,
            total=so_far.total,
            completed=so_far.done,
            rows=so_far.rows,
            what=f"{so_far.table} of {so_far.tenant_id}",
        )


if TYPE_CHECKING:
    from collections.abc import Callable

    _Show = Callable[[ExportProgress], None]
