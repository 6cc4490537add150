"""`conductor models`: what the model store holds, and which version of it serves."""

from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_model_store.cli import signing
from conductor_model_store.cli.options import (
    ChannelOption,
    PredictorArgument,
    ReasonOption,
    StoreOption,
    TenantOption,
    actor,
    moving,
    opened,
    trusted_keys_are_set,
)

if TYPE_CHECKING:
    from conductor_model_store.records import Pointer
    from conductor_model_store.store import ModelStore

commands = typer.Typer(no_args_is_help=True, help="List, check and choose models.")


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

    with opened(store) as models:
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
    """Show what a model was made from, what it claims, how its rivals did, and how the channel moved.

    Examples:

    conductor models show build-duration

    conductor models show build-duration --channel canary --tenant acme

    conductor models show build-duration 0123456789abcdef --tenant acme -o json
    """
    from conductor_model_store.description import candidate_rows, describe, history_rows
    from conductor_model_store.verification import signature_state

    with opened(store) as models:
        pointer = models.resolve(predictor, tenant, channel)
        if version is None and pointer is None:
            fail(f"{predictor}, {tenant or 'global'}: nothing on channel {channel!r}")
        model = models.load(predictor, tenant, version) if version else models.load_pointer(pointer)  # type: ignore[arg-type]
        signature = signature_state(models, model.scope, model.version)
        unchecked = "" if trusted_keys_are_set() or signature == "unsigned" else " (not checked)"
        record = describe(model, pointer, signature + unchecked)
        history = history_rows(models, model.scope, channel)
        if output is OutputFormat.JSON:
            print_record(record | {"candidates": candidate_rows(model), "history": history}, output)
        else:
            print_record(record, output)
            typer.echo()
            print_rows(candidate_rows(model), output, empty="No candidates recorded.")
            typer.echo()
            print_rows(history, output, empty=f"Channel {channel!r} never moved.")


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

    with opened(store) as models:
        findings = list(verify(models, predictor, tenant))
        damaged = [finding for finding in findings if finding.problem]
        rows = [
            {"checked": finding.subject, "signed_by": finding.signature, "problem": finding.problem}
            for finding in damaged or findings
        ]
        print_rows(rows, output, empty="The store holds no model.")
        if not trusted_keys_are_set():
            typer.echo("Signatures were not checked: CONDUCTOR_MODEL_TRUSTED_KEYS is not set.", err=True)
        if damaged:
            fail(f"{len(damaged)} of {len(findings)} are damaged or not trusted")


@commands.command("rollback")
def rollback_model(
    *,
    predictor: PredictorArgument,
    tenant: TenantOption = "",
    channel: ChannelOption = "champion",
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Go back to the version before the one in use; again for one further back.

    Example: conductor models rollback build-duration --tenant acme --reason "worse on Mondays"
    """
    with moving(store, "rollback", predictor=predictor, tenant_id=tenant, channel=channel) as models:
        pointer = models.rollback(predictor, tenant, channel, actor=actor(), detail=reason)
        print_record(_moved(models, pointer), output)


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
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Put a stored version to use, after checking it.

    Examples:

    conductor models promote build-duration 0123456789abcdef --tenant acme

    conductor models promote build-duration 0123456789abcdef --channel canary --weight 0.05

    conductor models promote build-duration canary
    """
    resource = {"predictor": predictor, "tenant_id": tenant, "channel": channel, "version": version, "weight": weight}
    with moving(store, "promote", **resource) as models:
        pointer = models.promote(predictor, tenant, version, channel, weight, actor=actor(), detail=reason)
        print_record(_moved(models, pointer), output)


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

    with opened(store) as models:
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
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take what a channel points at out of use; `rollback --channel` brings it back.

    Example: conductor models withdraw build-duration canary --reason "slower than we thought"
    """
    with moving(store, "withdraw", predictor=predictor, tenant_id=tenant, channel=channel) as models:
        pointer = models.withdraw(predictor, tenant, channel, reason, actor=actor())
        print_record(_moved(models, pointer), output)


def _moved(models: "ModelStore", pointer: "Pointer") -> dict[str, object]:
    return {
        "model": pointer.scope.resource_name,
        "channel": pointer.channel,
        "version": pointer.version,
        "generation": pointer.generation,
        "signed_by": models.moved_by(pointer.scope.pointer_key(pointer.channel, pointer.generation)),
    }


for _name, _command in signing.COMMANDS.items():
    commands.command(_name)(_command)
