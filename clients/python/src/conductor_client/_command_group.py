"""The typer application behind `conductor_client.command`."""

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from conductor_client.command import members, versions
from conductor_client.output import fail


class MemberCommands(TyperGroup):
    """Imports a member when its command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every member's command, in order."""
        return list(members())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command; one that can't be imported becomes a command that says so."""
        entry = members().get(cmd_name)
        return _load(entry) if entry else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve as typer does, which looks for near misses of a mistyped name in ``commands``."""
        self.commands = dict.fromkeys(members())  # type: ignore[assignment]  # only the names are looked at
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=MemberCommands,
    name="conductor",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes a third of a second to import, and `--help` is what people wait for
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(versions())
        raise typer.Exit


@app.callback()
def conductor(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Predict what will happen to builds.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done.
    """


@cache
def _load(entry: EntryPoint) -> Any:
    try:
        member = entry.load()
    except Exception as error:  # whatever a broken member raises must not take the others with it
        return _unavailable(entry, error)
    command = get_group(member) if isinstance(member, typer.Typer) else _function_command(member)
    command.name = entry.name
    return command


def _function_command(function: Callable[..., Any]) -> Any:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(function)
    return get_command(single)


def _unavailable(entry: EntryPoint, error: Exception) -> Any:
    reason = f"{type(error).__name__}: {error}"
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @single.command(
        entry.name,
        help=f"(not available: {reason})",
        # Whatever it is called with: the reason matters, not how its options are written.
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def report() -> None:
        fail(f"`conductor {entry.name}` is not available, because {entry.value} can't be imported: {reason}")

    return get_command(single)
