"""`conductor predict`: ask a server and print the answer as a person would read it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.cli_connection import (
    DEFAULT_TARGET,
    CaFileOption,
    InsecureOption,
    TargetOption,
    TimeoutOption,
    TokenFileOption,
    TokenOption,
    open_client,
)
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
    target: TargetOption = DEFAULT_TARGET,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 1.0,
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

    fields = BuildFields(repository=repository, pipeline=pipeline, branch=branch, actor=actor, commit_sha=commit)
    if trigger:
        fields["trigger"] = trigger.value
    client = open_client(target, token, token_file, ca_file, insecure, timeout)
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
    from conductor_client.origin_words import origin_words

    return origin_words(
        prediction,
        history="no model: from this pipeline's history",
        default="no model and no history: typical of all builds",
    )
