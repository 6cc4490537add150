"""`conductor predict`: ask a server and print the answer as a person would read it."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import fail, print_json, readable_duration

if TYPE_CHECKING:
    from conductor_client.predictions import BuildDurationPrediction

predict_commands = typer.Typer(no_args_is_help=True, help="Ask for predictions.")


@predict_commands.callback()
def _predict() -> None:
    """Ask for predictions."""


class AnswerFormat(StrEnum):
    """What ``-o`` takes."""

    TEXT = "text"
    JSON = "json"


class Trigger(StrEnum):
    """What ``--trigger`` takes."""

    PUSH = "push"
    PULL_REQUEST = "pull-request"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    OTHER = "other"


@predict_commands.command("build-duration")
def predict_build_duration(
    *,
    repository: Annotated[str, typer.Option("--repository", "-r", help='For example "octocat/hello-world".')],
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="Pipeline, workflow or job definition.")],
    tenant: Annotated[
        str, typer.Option("--tenant", envvar="CONDUCTOR_TENANT", help="Tenant that the build belongs to.")
    ],
    branch: Annotated[str, typer.Option("--branch", "-b", help="Branch that is built.")] = "",
    trigger: Annotated[Trigger | None, typer.Option("--trigger", help="What starts the build.")] = None,
    actor: Annotated[str, typer.Option("--actor", help="Who starts the build.")] = "",
    commit: Annotated[str, typer.Option("--commit", help="Commit that is built.")] = "",
    target: Annotated[
        str, typer.Option("--target", envvar="CONDUCTOR_TARGET", help="The server, as host:port.")
    ] = "localhost:50051",
    token: Annotated[
        str | None, typer.Option("--token", envvar="CONDUCTOR_TOKEN", help="Bearer token; better in a file.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", exists=True, dir_okay=False, help="File that holds the token.")
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            envvar="CONDUCTOR_CA_FILE",
            exists=True,
            dir_okay=False,
            help="PEM file of the authorities to trust, instead of the system's.",
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS: for a server on this machine.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Deadline in seconds.")] = 1.0,
    contributions: Annotated[int, typer.Option("--contributions", min=0, max=32, help="How many effects to tell.")] = 5,
    output: Annotated[AnswerFormat, typer.Option("--output", "-o", help="text for people, json for programs.")] = (
        AnswerFormat.TEXT
    ),
) -> None:
    """Predict how long a build will take if it passes.

    Examples:

    conductor predict build-duration --tenant acme -r octocat/hello-world -p ci --insecure

    conductor predict build-duration --tenant acme -r octocat/hello-world -p ci -b main --trigger push
    --target conductor.internal:443 --token-file token.txt -o json
    """
    from dataclasses import asdict

    from conductor_client.builds import BuildFields
    from conductor_client.errors import ConductorError
    from conductor_client.sync_client import SyncConductorClient

    fields = BuildFields(repository=repository, pipeline=pipeline, branch=branch, actor=actor, commit_sha=commit)
    if trigger:
        fields["trigger"] = trigger.value
    client = SyncConductorClient.connect(
        target,
        token=token_file.read_text().strip() if token_file else token,
        root_certificates=ca_file,
        insecure=insecure,
        timeout_seconds=timeout,
    )
    try:
        with client:
            prediction = client.predict_build_duration(tenant, contribution_count=contributions, **fields)
    except ConductorError as error:
        fail(f"{target}: {error}")
    if output is AnswerFormat.JSON:
        told = {name: getattr(prediction, name).name.lower() for name in ("method", "fallback_reason", "variant")}
        print_json(asdict(prediction) | told)
    else:
        typer.echo(describe(prediction))


def describe(prediction: "BuildDurationPrediction") -> str:
    """The answer in words, the effects of the features below it."""
    interval = f"{readable_duration(prediction.lower)} – {readable_duration(prediction.upper)}"
    claim = f"{prediction.coverage * 100:.3g} %" if prediction.coverage else "no claim"
    lines = [f"About {readable_duration(prediction.median)} ({claim}: {interval}) — {_origin(prediction)}"]
    for item in prediction.contributions:
        value = "missing" if item.value is None else f"= {item.value:.4g}"
        sign = "" if item.effect.total_seconds() < 0 else "+"
        lines.append(f"  {sign + readable_duration(item.effect):>12}  {item.feature} {value}")
    if prediction.missing_features:
        lines.append(f"  missing or too old: {_summary(prediction.missing_features)}")
    return "\n".join(lines)


_MOST_NAMES = 3


def _summary(features: Sequence[str]) -> str:
    """Names of features; of a view that lacks many only their number."""
    views: dict[str, list[str]] = {}
    for feature in features:
        views.setdefault(feature.partition(".")[0], []).append(feature)
    return ", ".join(
        f"{view} ({len(names)} features)" if len(names) > _MOST_NAMES else ", ".join(names)
        for view, names in views.items()
    )


def _origin(prediction: "BuildDurationPrediction") -> str:
    from conductor_client.predictions import FallbackReason, PredictionMethod, Variant

    name = prediction.model_name.removeprefix("models/").replace("/tenants/", "/", 1)
    model = f"model {name} {prediction.model_version}"
    if prediction.variant in {Variant.CANARY, Variant.CHALLENGER}:
        model = f"{prediction.variant.name.lower()} {model}"
    if prediction.fallback_reason is FallbackReason.MODEL_LOADING:
        model += " (the tenant's own is being loaded)"
    age = prediction.oldest_feature_age
    freshness = f", features {readable_duration(age)} old" if age is not None else ""
    match prediction.method:
        case PredictionMethod.MODEL:
            return model + freshness
        case PredictionMethod.MODEL_DEGRADED:
            return f"{model} without some of its features{freshness}"
        case PredictionMethod.HISTORY:
            return f"no model: from this pipeline's history{freshness}"
        case PredictionMethod.DEFAULT:
            return "no model and no history: typical of all builds"
    return "by a method that this client doesn't know"
