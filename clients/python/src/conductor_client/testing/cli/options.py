"""Options that the commands about tests share, and how they print."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from conductor_client.output import OutputFormat, fail, print_rows


class ListFormat(StrEnum):
    """What ``-o`` takes where tests are listed."""

    TEXT = "text"
    JSON = "json"
    IDS = "ids"


class AnswerFormat(StrEnum):
    """What ``-o`` takes otherwise."""

    TEXT = "text"
    JSON = "json"


class State(StrEnum):
    """What ``--state`` takes."""

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    FIXED = "fixed"


TenantOption = Annotated[
    str, typer.Option("--tenant", "-t", envvar="CONDUCTOR_TENANT", help="Tenant that the repository belongs to.")
]
RepositoryOption = Annotated[
    str | None,
    typer.Option(
        "--repository", "-r", help="Its name, as events tell it; with --base else the folder's.", show_default=False
    ),
]
TestsOption = Annotated[
    str | None,
    typer.Option("--tests", help="File of candidates, one a line, or -; else all that are known.", show_default=False),
]
DiffOption = Annotated[
    str | None, typer.Option("--diff", help="File of the change as a diff, or -.", show_default=False)
]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", help="Instead: what the checkout changed since this revision.", show_default=False),
]
PathOption = Annotated[Path, typer.Option(help="The checkout, with --base.", exists=True, file_okay=False)]
ChangedOption = Annotated[
    list[str] | None, typer.Option("--changed", help="Instead: a changed file; give it for each.", show_default=False)
]
CommitOption = Annotated[str, typer.Option("--commit", help="Commit that is tested.", show_default=False)]
LimitOption = Annotated[int, typer.Option("--limit", help="Tests to list as text, at most.", min=0)]
ListOption = Annotated[
    ListFormat, typer.Option("--output", "-o", help="text for people, json for programs, ids for test runners.")
]


@contextmanager
def told_errors(target: str) -> Iterator[None]:
    """A server's error ends the command, in one line."""
    from conductor_client.errors import ConductorError

    try:
        yield
    except ConductorError as error:
        fail(f"{target}: {error}")


def print_ids(test_ids: Iterable[str]) -> None:
    """One a line, for test runners."""
    for test_id in test_ids:
        if len(test_id.splitlines()) > 1:
            fail(f"{test_id!r} is of several lines: use -o json")
        typer.echo(test_id)


def print_table(rows: Iterable[Mapping[str, object]], count: int, limit: int) -> None:
    """The first rows, and how many there are more."""
    shown = list(islice(rows, limit))
    if shown:
        typer.echo("")
        print_rows(shown, OutputFormat.TABLE)
    if count > len(shown):
        typer.echo(f"… and {count - len(shown):,} more: --limit, -o json or -o ids lists them")
