"""``conductor repo index|show|impact``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_json, print_record, print_rows
from conductor_warehouse.cli.common import DatabaseOption, open_connection, open_settings

if TYPE_CHECKING:
    from conductor_warehouse.code_graph.indexing import Progress

repo_commands = typer.Typer(help="What of a repository's code leads to which tests.", no_args_is_help=True)

_TenantOption = Annotated[
    str, typer.Option("--tenant", "-t", envvar="CONDUCTOR_TENANT", help="Tenant that the repository belongs to.")
]
_RepositoryOption = Annotated[
    str | None,
    typer.Option("--repository", "-r", help="Its name, as events tell it; else the folder's.", show_default=False),
]


@repo_commands.command("index")
def repo_index(
    path: Annotated[Path, typer.Argument(help="A checkout.", exists=True, file_okay=False)],
    *,
    tenant: _TenantOption,
    repository: _RepositoryOption = None,
    commit: Annotated[
        str | None, typer.Option(help="What the files are of; else what git says is checked out.", show_default=False)
    ] = None,
    test_id_prefix: Annotated[
        str, typer.Option(help="What stands before all test ids in this repository's events.")
    ] = "",
    processes: Annotated[
        int | None,
        typer.Option(help="Parse in so many processes; else in one for each core.", min=1, show_default=False),
    ] = None,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read a checkout's code (Python, Java, TypeScript, JavaScript, Go) and keep what leads to which tests.

    Files that were read before are not read again. Stopped or killed, it leaves the last snapshot as it was.
    Nothing of the repository is run.

    \b
    Examples:
      conductor repo index . --tenant acme --repository octocat/hello-world
      conductor repo index checkout --tenant acme --commit 4f2a91c -o json
    """
    from conductor_warehouse.code_graph.checkout import Checkout, CheckoutError
    from conductor_warehouse.code_graph.indexing import index

    with open_connection(open_settings(database_url=database_url)) as connection:
        try:
            checkout = Checkout(path)
            name = repository or checkout.root.name
            with _progress(name) as show:
                result = index(
                    connection,
                    tenant,
                    name,
                    checkout,
                    commit=commit,
                    test_id_prefix=test_id_prefix,
                    processes=processes,
                    progress=show,
                )
        except CheckoutError as error:
            fail(str(error))
    _print_snapshot(
        {
            "repository": name,
            "commit": result.snapshot.commit,
            "unchanged": result.unchanged,
            "parsed": result.parsed_count,
        },
        result.snapshot.counts,
        output,
    )


@repo_commands.command("show")
def repo_show(
    repository: Annotated[str, typer.Argument(help="As events tell it.")],
    *,
    tenant: _TenantOption,
    commit: Annotated[str | None, typer.Option(help="Of this commit; else the latest.", show_default=False)] = None,
    unresolved: Annotated[int, typer.Option(help="Imports to list that lead nowhere, at most.", min=0)] = 10,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show what is known of a repository: counts, languages, what was skipped and why, imports that lead nowhere.

    \b
    Example:
      conductor repo show octocat/hello-world --tenant acme
    """
    from conductor_warehouse.code_graph import store

    with open_connection(open_settings(database_url=database_url)) as connection:
        snapshot = store.find(connection, tenant, repository, commit)
        if snapshot is None:
            fail(f"{repository} is not indexed: run `conductor repo index PATH --tenant {tenant} -r {repository}`")
        lost = store.unresolved(connection, tenant, snapshot, unresolved)
    head = {"repository": repository, "commit": snapshot.commit, "indexed": snapshot.indexed_time}
    _print_snapshot(head, snapshot.counts, output, [{"import": name, "files": count} for name, count in lost])


@repo_commands.command("impact")
def repo_impact(
    diff: Annotated[
        str | None, typer.Argument(help="A diff's file, or - for standard input.", show_default=False)
    ] = None,
    *,
    tenant: _TenantOption,
    repository: _RepositoryOption = None,
    base: Annotated[
        str | None,
        typer.Option(help="Instead of a diff: what the checkout changed since this revision.", show_default=False),
    ] = None,
    path: Annotated[Path, typer.Option(help="The checkout, with --base.", exists=True, file_okay=False)] = Path(),
    commit: Annotated[
        str | None, typer.Option(help="Ask this commit's graph; else the latest.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="Tests to list, at most, nearest first.", min=1)] = 50,
    database_url: DatabaseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Tell which tests a change reaches, how far they are from it, and by which way.

    \b
    Examples:
      conductor repo impact --base main --tenant acme -r octocat/hello-world
      git diff main... | conductor repo impact - --tenant acme -r octocat/hello-world -o json
    """
    from conductor_features.changes.diff import DiffError, parse_diff
    from conductor_features.changes.impact_graph import impact_of
    from conductor_warehouse.code_graph import store
    from conductor_warehouse.code_graph.checkout import Checkout, CheckoutError
    from conductor_warehouse.code_graph.report import summary, tests_reached

    if (diff is None) == (base is None):
        fail("give a diff, or --base", USAGE)
    try:
        if base is not None:
            checkout = Checkout(path)
            data, repository = checkout.diff(base), repository or checkout.root.name
        else:
            data = sys.stdin.buffer.read() if diff == "-" else Path(str(diff)).read_bytes()
        files = parse_diff(data)
    except (CheckoutError, DiffError, OSError) as error:
        fail(str(error))
    if repository is None:
        fail("give --repository", USAGE)
    with open_connection(open_settings(database_url=database_url)) as connection:
        snapshot = store.find(connection, tenant, repository, commit)
        if snapshot is None:
            fail(f"{repository} is not indexed: run `conductor repo index PATH --tenant {tenant} -r {repository}`")
        graph = store.load_graph(connection, tenant, repository, snapshot)
    impact = impact_of(graph, files)
    tests = tests_reached(impact)
    told = {"repository": repository, "graph_commit": graph.commit, **summary(impact, files, len(tests))}
    if output is OutputFormat.JSON:
        print_json({**told, "tests": tests[:limit]})
        return
    print_record(told, output)
    typer.echo("")
    print_rows(
        [{**one, "way": " ← ".join(reversed(one["way"]))} for one in tests[:limit]], output, empty="No test is reached."
    )


def _print_snapshot(
    head: dict[str, Any], counts: Any, output: OutputFormat, unresolved: list[dict[str, Any]] | None = None
) -> None:
    record = {**head, **counts}
    if output is OutputFormat.JSON:
        print_json(record | ({} if unresolved is None else {"unresolved": unresolved}))
        return
    texts = {
        name: ", ".join(f"{key} {number:,}" for key, number in value.items()) or "–"
        if isinstance(value, dict)
        else value
        for name, value in record.items()
    }
    print_record(texts, output)
    if unresolved:
        typer.echo("\nimports that lead nowhere:")
        print_rows(unresolved, output)


@contextmanager
def _progress(repository: str) -> Iterator[Callable[[Progress], None]]:
    """A line on standard error."""
    from rich.console import Console

    with Console(stderr=True).status(f"Indexing {repository}") as line:
        yield lambda one: line.update(
            f"Indexing {repository}: {one.step}" + (f", {one.done:,} of {one.of:,} files" if one.of > 1 else "")
        )
