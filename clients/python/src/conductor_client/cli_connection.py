"""Options of every command that asks a server, and the client that they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from conductor_client.sync_client import SyncConductorClient

DEFAULT_TARGET = "localhost:50051"

TargetOption = Annotated[str, typer.Option("--target", envvar="CONDUCTOR_TARGET", help="The server, as host:port.")]
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar="CONDUCTOR_TOKEN", help="Bearer token; better in a file.")
]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", exists=True, dir_okay=False, help="File that holds the token.")
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="CONDUCTOR_CA_FILE",
        exists=True,
        dir_okay=False,
        help="PEM file of the authorities to trust, instead of the system's.",
    ),
]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="No TLS: for a server on this machine.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.001, help="Deadline in seconds.")]


def open_client(
    target: str,
    token: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    insecure: bool,
    timeout_seconds: float,
) -> "SyncConductorClient":
    """The client that the options describe."""
    from conductor_client.connection import ConnectionSettings  # noqa: PLC0415 - `--help` must not wait for gRPC
    from conductor_client.sync_client import SyncConductorClient  # noqa: PLC0415

    return SyncConductorClient(
        ConnectionSettings(
            target,
            token=token_file.read_text().strip() if token_file else token,
            root_certificates=ca_file,
            insecure=insecure,
            timeout_seconds=timeout_seconds,
            tests_timeout_seconds=timeout_seconds,
        )
    )
