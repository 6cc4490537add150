"""``conductor keys``: API keys, for machines without an issuer of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows

if TYPE_CHECKING:
    from datetime import datetime

    from conductor_client.audit_log import AuditLog
    from conductor_rpc.api_keys import ApiKey

keys_commands = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

FileOption = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="File of the keys; else CONDUCTOR_API_KEYS_FILE, conductor.toml."),
]


@keys_commands.callback()
def _keys() -> None:
    """Create, list and revoke API keys. Servers that read the same file follow within a second."""


@keys_commands.command("create")
def create_key(
    *,
    tenant: Annotated[str, typer.Argument(help="Tenant that the key speaks for.")],
    roles: Annotated[
        list[str], typer.Option("--role", "-r", help="predict, publish, operate or models:admin; may be repeated.")
    ],
    days: Annotated[float, typer.Option(min=0.001, help="Lifetime.")] = 90.0,
    forever: Annotated[bool, typer.Option("--forever", help="It does not end, unless revoked.")] = False,
    description: Annotated[str, typer.Option("--description", help="What it is for, for who reads the list.")] = "",
    file: FileOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Create a key and print it. This once: the file keeps a digest only.

    \b
    Examples:
      conductor keys create acme --role publish --description "build agents" --file /etc/conductor/keys.json
      CONDUCTOR_TOKEN=$(conductor keys create acme -r predict --days 1 -o json | jq -r .key)
    """
    from datetime import timedelta

    from conductor_client.audit_log import audited_command
    from conductor_rpc import api_keys

    path, audit = _places(file)
    lifetime = None if forever else timedelta(days=days)
    granted = frozenset(roles)
    with _errors(), audited_command(audit, "keys create", tenant_id=tenant, roles=":".join(sorted(granted))) as noted:
        created, secret = api_keys.create(path, tenant, granted, lifetime, description)
        noted["key_id"] = created.key_id
    print_record({"key": secret} | _row(created, _now()), output)
    if output is OutputFormat.TABLE:
        typer.echo("Nobody can tell the key again: keep it where secrets are kept.", err=True)


@keys_commands.command("list")
def list_keys(
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant's.")] = None,
    file: FileOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the keys, those that open nothing any more too. The keys themselves are not known.

    \b
    Examples:
      conductor keys list --file /etc/conductor/keys.json
      conductor keys list --tenant acme -o json
    """
    from conductor_rpc import api_keys

    path, _ = _places(file)
    with _errors():
        found = api_keys.read(path)
    now = _now()
    print_rows([_row(key, now) for key in found if tenant in {None, key.tenant_id}], output, empty="No keys.")


@keys_commands.command("revoke")
def revoke_key(
    *,
    key_id: Annotated[str, typer.Argument(help="Id of the key: what stands between its two underscores.")],
    file: FileOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Let a key open nothing any more, open streams included, within a second.

    \b
    Example:
      conductor keys revoke 0123456789ab --file /etc/conductor/keys.json
    """
    from conductor_client.audit_log import audited_command
    from conductor_rpc import api_keys

    if not api_keys.ID.fullmatch(key_id):
        fail(
            "an id is twelve hexadecimal digits: look with `conductor keys list`", USAGE
        )  # and no secret, as the key is
    path, audit = _places(file)
    with _errors(), audited_command(audit, "keys revoke", key_id=key_id) as noted:
        revoked = api_keys.revoke(path, key_id)
        noted["tenant_id"] = revoked.tenant_id
    print_record(_row(revoked, _now()), output)


def _places(file: Path | None) -> tuple[Path, AuditLog]:
    """Where the keys are, and what is done to them is noted."""
    from conductor_client.audit_log import AuditLog
    from conductor_rpc.settings import RpcSettings

    settings = RpcSettings.from_flags(api_keys_file=file)
    if settings.api_keys_file is None:
        fail("which file? Say --file, CONDUCTOR_API_KEYS_FILE or api_keys_file in conductor.toml", USAGE)
    return settings.api_keys_file, AuditLog(settings.audit_file)


@contextmanager
def _errors() -> Iterator[None]:
    from conductor_rpc.api_keys import KeyNotFound

    try:
        yield
    except (KeyNotFound, OSError, ValueError) as error:
        fail(str(error))


def _row(key: ApiKey, now: datetime) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "tenant": key.tenant_id,
        "roles": sorted(key.roles),
        "state": key.state(now),
        "created": key.create_time,
        "expires": key.expire_time,
        "revoked": key.revoke_time,
        "description": key.description,
    }


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)
