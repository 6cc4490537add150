"""What the commands of `conductor models` have in common."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import fail

if TYPE_CHECKING:
    from conductor_model_store.store import ModelStore

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Local path or URL (s3://bucket/prefix) of the model store; else CONDUCTOR_MODEL_STORE, conductor.toml, "
        ".conductor/models.",
    ),
]
TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="Tenant; absent means the global model.")]
ChannelOption = Annotated[str, typer.Option("--channel", "-c", help='"champion" answers requests.')]
PredictorArgument = Annotated[str, typer.Argument(help="For example build-duration.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Kept in the channel's history.")]


def trusted_keys_are_set() -> bool:
    """Whether signatures are checked."""
    from conductor_model_store.settings import ModelTrustSettings

    return bool(ModelTrustSettings().model_trusted_keys)


@contextmanager
def opened(location: str | None) -> "Iterator[ModelStore]":
    """Open the store of the option or the settings; its errors end the command with one line."""
    from conductor_model_store.errors import ModelStoreError
    from conductor_model_store.settings import ModelStoreSettings

    try:
        yield ModelStoreSettings.from_flags(model_store=location).open()
    except ModelStoreError as error:
        fail(str(error))


@contextmanager
def moving(location: str | None, command: str, **resource: object) -> "Iterator[ModelStore]":
    """As :func:`opened`, for what moves a channel: noted in the audit log before it is done, and what came of it."""
    from conductor_client.audit_log import AuditLog, audited_command
    from conductor_model_store.settings import ModelStoreSettings

    file = ModelStoreSettings().audit_file
    with opened(location) as store:
        if file is None:
            yield store
            return
        try:
            with audited_command(AuditLog(file), f"models {command}", **resource):
                yield store
        except OSError as error:
            fail(f"the audit log: {error}")


def actor() -> str:
    """Who types, by the machine's account."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
