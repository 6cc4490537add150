"""`conductor models`: keys, and what is signed with them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_model_store.cli.options import (
    ChannelOption,
    PredictorArgument,
    ReasonOption,
    StoreOption,
    TenantOption,
    actor,
    moving,
    opened,
)

if TYPE_CHECKING:
    from conductor_model_store.verification import Finding


def sign_models(
    *,
    predictor: Annotated[str | None, typer.Argument(help="Absent, with --all: every predictor's.")] = None,
    version: Annotated[str | None, typer.Argument(help="As `conductor models list --versions` tells it.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Tenant; absent means the global model.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every stored version, of all or of this predictor or tenant.")
    ] = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Add your signature to stored versions, after checking their digests. Other keys' signatures stay.

    The key is CONDUCTOR_MODEL_SIGNING_KEY. Use it for models from before there were signatures, and for a new key.
    Exit code 1 if anything is damaged; the rest is signed.

    Examples:

    conductor models sign build-duration 0123456789abcdef --tenant acme

    conductor models sign --all
    """
    from conductor_model_store.scope import ModelScope
    from conductor_model_store.signing import sign, sign_all

    if everything == bool(version) or not (everything or predictor):
        fail("say which version of which predictor, or --all", USAGE)
    with opened(store) as models:
        if everything:
            findings = list(sign_all(models, predictor, tenant))
        else:
            findings = [sign(models, ModelScope(predictor or "", tenant or ""), version or "")]
        _tell(findings, "model", output)


def generate_keys(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder; made if it is not there.")],
    name: Annotated[str, typer.Option("--name", help="Name of both files.")] = "model-signing",
    algorithm: Annotated[str, typer.Option("--algorithm", help="ed25519 or ecdsa-p256.")] = "ed25519",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a key pair to sign with: NAME.key, for your eyes only, and NAME.pem, for servers. Overwrites nothing.

    Example: conductor models keygen --out keys
    """
    from conductor_model_store.errors import InvalidKey
    from conductor_model_store.signing_keys import KeyAlgorithm, generate_key_pair

    if algorithm not in set(KeyAlgorithm):
        fail(f"{algorithm!r} is no algorithm: {' or '.join(KeyAlgorithm)}", USAGE)
    try:
        pair = generate_key_pair(out, name, KeyAlgorithm(algorithm))
    except InvalidKey as error:
        fail(str(error))
    record = {"private_key": str(pair.private_key), "public_key": str(pair.public_key), "key_id": pair.key_id}
    print_record(record, output)
    if output is OutputFormat.TABLE:
        typer.echo(
            f"\nTo sign:   export CONDUCTOR_MODEL_SIGNING_KEY={pair.private_key}\n"
            f"To serve:  export CONDUCTOR_MODEL_TRUSTED_KEYS={pair.public_key}\n"
            "The same key moves channels, unless CONDUCTOR_MODEL_OPERATOR_KEY and "
            "CONDUCTOR_MODEL_TRUSTED_OPERATOR_KEYS name another pair."
        )


def sign_channels(
    *,
    predictor: Annotated[str | None, typer.Argument(help="Absent, with --all: every predictor's.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Tenant; absent means the global model.")] = None,
    channel: Annotated[str | None, typer.Option("--channel", "-c", help="Absent means all of them.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The channels of all models, or of this predictor or tenant.")
    ] = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Add your signature to the generations of channels that are trusted; where none is, to all of them.

    The key is CONDUCTOR_MODEL_OPERATOR_KEY, else CONDUCTOR_MODEL_SIGNING_KEY. Use it for a new key, with the old one
    still trusted, and for a store from before moves were signed: look with `conductor models show` first, since you
    vouch for where its channels point. Exit code 1 if a generation points at what is damaged or not trusted.

    Examples:

    conductor models sign-channels --all

    conductor models sign-channels build-duration --tenant acme --channel canary
    """
    from conductor_model_store.signing import sign_channels as sign

    if not (everything or predictor):
        fail("say which predictor, or --all", USAGE)
    with opened(store) as models:
        findings = list(sign(models, predictor, tenant if everything else tenant or "", channel))
        _tell(findings, "generation", output)


def _tell(findings: Sequence["Finding"], what: str, output: OutputFormat) -> None:
    """What was signed; exit code 1 where something was not."""
    rows = [{what: one.subject, "signed_by": one.signature, "problem": one.problem} for one in findings]
    print_rows(rows, output, empty=f"The store holds no {what}.")
    unsigned = sum(1 for one in findings if one.problem)
    if unsigned:
        fail(f"{unsigned} of {len(findings)} were not signed")


def restart_channel(
    *,
    predictor: PredictorArgument,
    above: Annotated[int, typer.Option("--above", min=0, help="The generation that servers say they saw.")],
    tenant: TenantOption = "",
    channel: ChannelOption = "champion",
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Begin a channel's chain of moves anew, where it points now, above a generation that the store lost.

    After a store was restored from a backup, or somebody deleted generations, servers refuse what does not follow what
    they saw. This is the authority to go on from here.

    Example: conductor models restart-channel build-duration --tenant acme --above 17 --reason "restored the backup"
    """
    resource = {"predictor": predictor, "tenant_id": tenant, "channel": channel, "above": above}
    with moving(store, "restart-channel", **resource) as models:
        pointer = models.restart_channel(predictor, tenant, channel, above, actor=actor(), detail=reason)
        record = {"model": pointer.scope.resource_name, "channel": channel, "version": pointer.version}
        print_record(record | {"generation": pointer.generation}, output)


COMMANDS: dict[str, Callable[..., None]] = {
    "sign": sign_models,
    "sign-channels": sign_channels,
    "restart-channel": restart_channel,
    "keygen": generate_keys,
}
