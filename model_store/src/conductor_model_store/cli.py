"""`conductor models`: what the model store holds, and which version of it serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import OutputFormat, OutputOption, fail, print_record, print_rows

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

    with _opened(store) as models:
        pointer = models.resolve(predictor, tenant, channel)
        if version is None and pointer is None:
            fail(f"{predictor}, {tenant or 'global'}: nothing on channel {channel!r}")
        model = models.load(predictor, tenant, version) if version else models.load_pointer(pointer)  # type: ignore[arg-type]
        record = describe(model, pointer)
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
    """Read every version and pointer and check their digests. Exit code 1 if anything is damaged.

    Example: conductor models verify
    """
    from conductor_model_store.verification import verify

    with _opened(store) as models:
        findings = list(verify(models, predictor, tenant))
        damaged = [finding for finding in findings if finding.problem]
        rows = [{"checked": finding.subject, "problem": finding.problem} for finding in damaged or findings]
        print_rows(rows, output, empty="The store holds no model.")
        if damaged:
            fail(f"{len(damaged)} of {len(findings)} are damaged")


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
    version: Annotated[str, typer.Argument(help="As `conductor models list --versions` tells it.")],
    tenant: TenantOption = "",
    channel: ChannelOption = "champion",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Put a stored version to use, after checking it.

    Example: conductor models promote build-duration 0123456789abcdef --tenant acme
    """
    with _opened(store) as models:
        pointer = models.promote(predictor, tenant, version, channel)
        print_record(_moved(pointer.scope.resource_name, channel, pointer.version, pointer.generation), output)


def _moved(model: str, channel: str, version: str, generation: int) -> dict[str, object]:
    return {"model": model, "channel": channel, "version": version, "generation": generation}


@contextmanager
def _opened(location: str | None) -> "Iterator[ModelStore]":
    """Open the store of the option or the settings; its errors end the command with one line."""
    from conductor_model_store.errors import ModelStoreError
    from conductor_model_store.settings import ModelStoreSettings
    from conductor_model_store.store import ModelStore

    try:
        yield ModelStore.open(location or ModelStoreSettings().model_store)
    except ModelStoreError as error:
        fail(str(error))
