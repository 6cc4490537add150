"""The `conductor` command: whatever the installed members bring as entry points of the group "conductor.commands".

An entry point is a ``typer.Typer`` (a group of subcommands) or a plain function (a command). A member that can't be
imported is named in the help and reported when it is called; the others work.
"""

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version

GROUP = "conductor.commands"


def main() -> None:
    """Run the command line."""
    try:
        from conductor_client._command_group import app  # noqa: PLC0415 - typer belongs to the extra "cli"
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(f"Error: the conductor command needs {error.name}: pip install 'conductor-client[cli]'", file=sys.stderr)
        sys.exit(1)
    app()


@cache
def members() -> dict[str, EntryPoint]:
    """Entry points by the name of their command, in order."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def versions() -> str:
    """The client's version: the members are released together."""
    return f"conductor {version('conductor-client')}"


if __name__ == "__main__":
    main()
