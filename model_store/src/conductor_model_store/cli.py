"""`conductor models`: what the model store holds, and which version of it serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows

if TYPE_CHECKING:
    from conductor_model_store.store import ModelStore

commands = typer.Typer(no_args_is_help=True, help="List, check and choose models.")

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


@commands.command("list")
def list_models(
    *,
    predictor: Annotated[str | None, typer.Argument(help="Only this predictor's.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help='Only this tenant\'s; "" for global.')] = None,
    channel: ChannelOption = "champion",
    versions: Annotated[bool, typer.Option("--versions", help="Every stored version, not only those in use.")] = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the models in use, or every stored version.

    Examples:

    conductor models list

    conductor models list build-duration --tenant acme --versions -o json
    """
    from conductor_model_store.store import WEIGHTED

    with _opened(store) as models:
        pointers = models.pointers(channel)
        rows: list[dict[str, object]] = []
        for scope in models.scopes() if versions else sorted(pointers):
            if predictor not in (None, scope.predictor) or tenant not in (None, scope.tenant_id):
                continue
            pointer = pointers.get(scope)
            if versions:
                rows += [
                    {
                        "model": scope.resource_name,
                        "version": stored.version,
                        "stored": stored.stored_time,
                        channel: bool(pointer and pointer.version == stored.version),
                    }
                    for stored in models.versions(scope.predictor, scope.tenant_id)
                ]
            elif pointer:
                rows.append(
                    {
                        "model": scope.resource_name,
                        "version": pointer.version,
                        "generation": pointer.generation,
                        **({"weight": pointer.weight} if channel in WEIGHTED else {}),
                        "since": pointer.published_time,
                        "by": pointer.reason,
                    }
                )
        print_rows(rows, output, empty=f"No model on channel {channel!r}: train one, or look with --versions.")


@commands.command("show")
def show_model(
    *,
    predictor: PredictorArgument,
    version: Annotated[str | None, typer.Argument(help="Absent means the one in use.")] = None,
    tenant: TenantOption = "",
    channel: ChannelOption = "champion",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show what a model was made from, what it claims and how its rivals did.

    Examples:

    conductor models show build-duration

    conductor models show build-duration 0123456789abcdef --tenant acme -o json
    """
    from conductor_model_store.description import candidate_rows, describe
    from conductor_model_store.verification import signature_state

    with _opened(store) as models:
        pointer = models.resolve(predictor, tenant, channel)
        if version is None and pointer is None:
            fail(f"{predictor}, {tenant or 'global'}: nothing on channel {channel!r}")
        model = models.load(predictor, tenant, version) if version else models.load_pointer(pointer)  # type: ignore[arg-type]
        signature = signature_state(models, model.scope, model.version)
        unchecked = "" if _trusted_keys_are_set() or signature == "unsigned" else " (not checked)"
        record = describe(model, pointer, signature + unchecked)
        if output is OutputFormat.JSON:
            print_record(record | {"candidates": candidate_rows(model)}, output)
        else:
            print_record(record, output)
            typer.echo()
            print_rows(candidate_rows(model), output, empty="No candidates recorded.")


@commands.command("verify")
def verify_models(
    *,
    predictor: Annotated[str | None, typer.Argument(help="Only this predictor's.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help='Only this tenant\'s; "" for global.')] = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Check signatures and digests of every version and pointer. Exit code 1 if anything is damaged or not trusted.

    Signatures are checked against CONDUCTOR_MODEL_TRUSTED_KEYS; without it they are only told.

    Example: conductor models verify
    """
    from conductor_model_store.verification import verify

    with _opened(store) as models:
        findings = list(verify(models, predictor, tenant))
        damaged = [finding for finding in findings if finding.problem]
        rows = [
            {"checked": finding.subject, "signed_by": finding.signature, "problem": finding.problem}
            for finding in damaged or findings
        ]
        print_rows(rows, output, empty="The store holds no model.")
        if not _trusted_keys_are_set():
            typer.echo("Signatures were not checked: CONDUCTOR_MODEL_TRUSTED_KEYS is not set.", err=True)
        if damaged:
            fail(f"{len(damaged)} of {len(findings)} are damaged or not trusted")


@commands.command("rollback")
def rollback_model(
    *,
    predictor: PredictorArgument,
    tenant: TenantOption = "",
    channel: ChannelOption = "champion",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Go back to the version before the one in use; again for one further back.

    Example: conductor models rollback build-duration --tenant acme
    """
    with _opened(store) as models:
        pointer = models.rollback(predictor, tenant, channel)
        print_record(_moved(pointer.scope.resource_name, channel, pointer.version, pointer.generation), output)


@commands.command("promote")
def promote_model(
    *,
    predictor: PredictorArgument,
    version: Annotated[str, typer.Argument(help="As `conductor models list --versions` tells it; or a channel.")],
    tenant: TenantOption = "",
    channel: ChannelOption = "champion",
    weight: Annotated[
        float, typer.Option("--weight", "-w", min=0, max=1, help="Share that a canary or challenger answers.")
    ] = 0.0,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Put a stored version to use, after checking it.

    Examples:

    conductor models promote build-duration 0123456789abcdef --tenant acme

    conductor models promote build-duration 0123456789abcdef --channel canary --weight 0.05

    conductor models promote build-duration canary
    """
    with _opened(store) as models:
        pointer = models.promote(predictor, tenant, version, channel, weight)
        print_record(_moved(pointer.scope.resource_name, channel, pointer.version, pointer.generation), output)


@commands.command("diff")
def diff_models(
    *,
    predictor: PredictorArgument,
    a: Annotated[str, typer.Argument(help="A version or a channel.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    tenant: TenantOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Tell what two versions differ in: manifest, columns, metrics, and answers to their golden requests.

    Example: conductor models diff build-duration champion canary --tenant acme
    """
    from conductor_model_store import difference

    with _opened(store) as models:
        first, second = (models.find(predictor, tenant, name) for name in (a, b))
        told: dict[str, list[dict[str, object]]] = {
            "fields": difference.fields(first, second),
            "columns": difference.columns(first, second),
            "metrics": difference.metrics(first, second),
        }
        try:
            told["answers"] = difference.answers(first, second)
        except ImportError:
            typer.echo("Answers are not compared: ONNX Runtime is not installed.", err=True)
        if output is OutputFormat.JSON:
            print_record({"a": first.version, "b": second.version, **told}, output)
            return
        typer.echo(f"a: {first.version}, b: {second.version}")
        for name, rows in told.items():
            typer.echo()
            print_rows(rows, output, empty=f"No difference in {name}.")


@commands.command("withdraw")
def withdraw_channel(
    *,
    predictor: PredictorArgument,
    channel: Annotated[str, typer.Argument(help='"canary", "challenger" or "shadow".')],
    tenant: TenantOption = "",
    reason: Annotated[str, typer.Option("--reason", help="Kept in the channel's history.")] = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take what a channel points at out of use; `rollback --channel` brings it back.

    Example: conductor models withdraw build-duration canary --reason "slower than we thought"
    """
    with _opened(store) as models:
        pointer = models.withdraw(predictor, tenant, channel, reason)
        print_record(_moved(pointer.scope.resource_name, channel, pointer.version, pointer.generation), output)


@commands.command("sign")
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
    with _opened(store) as models:
        if everything:
            findings = list(sign_all(models, predictor, tenant))
        else:
            findings = [sign(models, ModelScope(predictor or "", tenant or ""), version or "")]
        rows = [
            {"model": finding.subject, "signed_by": finding.signature, "problem": finding.problem}
            for finding in findings
        ]
        print_rows(rows, output, empty="The store holds no model.")
        unsigned = sum(1 for finding in findings if finding.problem)
        if unsigned:
            fail(f"{unsigned} of {len(findings)} were not signed")


@commands.command("keygen")
def generate_keys(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder; made if it is not there.")],
    name: Annotated[str, typer.Option("--name", help="Name of both files.")] = "model-signing",
    algorithm: Annotated[str, typer.Option("--algorithm", help="ed25519 or ecdsa-p256.")] = "ed25519",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a key pair to sign models with: NAME.key, for your eyes only, and NAME.pem, for servers. Overwrites nothing.

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
            f"To serve:  export CONDUCTOR_MODEL_TRUSTED_KEYS={pair.public_key}"
        )


def _moved(model: str, channel: str, version: str, generation: int) -> dict[str, object]:
    return {"model": model, "channel": channel, "version": version, "generation": generation}


def _trusted_keys_are_set() -> bool:
    from conductor_model_store.settings import ModelTrustSettings

    return bool(ModelTrustSettings().model_trusted_keys)


@contextmanager
def _opened(location: str | None) -> "Iterator[ModelStore]":
    """Open the store of the option or the settings; its errors end the command with one line."""
    from conductor_model_store.errors import ModelStoreError
    from conductor_model_store.settings import ModelStoreSettings

    try:
        yield ModelStoreSettings.from_flags(model_store=location).open()
    except ModelStoreError as error:
        fail(str(error))
