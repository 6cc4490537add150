"""How every command prints: a table for people, JSON for programs, errors in one line.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from conductor_client.redaction import redacted

FAILED = 1
USAGE = 2
PARTLY = 3


class OutputFormat(StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="table for people, json for programs.")]
"""Type of a command's ``output`` parameter: ``output: OutputOption = OutputFormat.TABLE``."""


def print_rows(rows: Sequence[Mapping[str, object]], output: OutputFormat, *, empty: str = "Nothing found.") -> None:
    """Print rows with the same keys: a table headed by the keys, or a JSON array.

    ``empty``: what to say instead of a table without rows.
    """
    if output is OutputFormat.JSON:
        print_json([dict(row) for row in rows])
        return
    if not rows:
        typer.echo(empty, err=True)
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import, and JSON doesn't need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False)
    for key, value in rows[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(key.replace("_", " "), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(readable(value)) for value in row.values()))
    # Into a pipe, a table is as wide as it is: lines broken at 80 characters are no use to grep.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def print_record(record: Mapping[str, object], output: OutputFormat) -> None:
    """Print one thing: a line per field, or a JSON object."""
    if output is OutputFormat.JSON:
        print_json(dict(record))
        return
    width = max(map(len, record), default=0)
    for key, value in record.items():
        typer.echo(f"{key.replace('_', ' '):<{width}}  {readable(value)}")


def print_json(value: object) -> None:
    """Print JSON: times in ISO 8601, durations in seconds, numbers that JSON lacks as null."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with one line on standard error; secrets in it are hidden."""
    typer.echo(f"Error: {redacted(message)}", err=True)
    raise typer.Exit(code)


def readable(value: object) -> str:
    """A value as a person would write it."""
    match value:
        case None:
            text = "–"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.4g}"
        case datetime():
            text = value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case timedelta():
            text = readable_duration(value)
        case list() | tuple():
            text = ", ".join(map(readable, value))
        case _:
            text = str(value)
    return text


def readable_duration(duration: timedelta) -> str:
    """A duration in its two largest units: "0.4 s", "12 s", "5 min 20 s", "2 h 5 min", "3 d 4 h"."""
    seconds = abs(duration.total_seconds())
    sign = "-" if duration < timedelta() else ""
    if seconds < 9.95:
        return f"{sign}{seconds:.1f}".removesuffix(".0") + " s"
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        # Rounded to the smaller unit first, so that 59 min 59.7 s is 1 h and not 60 min.
        large, small = divmod(round(seconds / next_size), size // next_size)
        if large:
            return f"{sign}{large} {unit}" + (f" {small} {next_unit}" if small else "")
    return f"{sign}{round(seconds)} s"


def _plain(value: object) -> object:
    plain: object = value
    match value:
        case float() if not math.isfinite(value):
            plain = None
        case datetime():
            plain = value.isoformat()
        case timedelta():
            plain = value.total_seconds()
        case Mapping():
            plain = {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            plain = [_plain(item) for item in value]
        case str() | int() | float() | None:
            pass
        case _:
            plain = str(value)
    return plain
