"""``conductor tests flaky|classify``."""

from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, cast

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
from conductor_client.output import OutputFormat, print_json, print_rows
from conductor_client.testing.cli.options import (
    AnswerFormat,
    BaseOption,
    ChangedOption,
    CommitOption,
    DiffOption,
    ListFormat,
    ListOption,
    PathOption,
    RepositoryOption,
    State,
    TenantOption,
    print_ids,
    told_errors,
)


def flaky(
    *,
    tenant: TenantOption,
    repository: Annotated[str, typer.Option("--repository", "-r", help="Its name, as events tell it.")],
    state: Annotated[
        list[State] | None,
        typer.Option(help="Tests of this state; give it for each. Else active and quarantined.", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Tests to list, at most.", min=1, show_default=False)] = None,
    target: TargetOption = DEFAULT_TARGET,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 10.0,
    output: ListOption = ListFormat.TEXT,
) -> None:
    """List a repository's flaky tests, those that are flaky now first.

    \b
    Examples:
      conductor tests flaky --tenant acme -r octocat/hello
      conductor tests flaky --tenant acme -r octocat/hello --state quarantined -o ids
    """
    from conductor_client.testing.json_form import plain
    from conductor_client.testing.words import STATES, evidence_words, share

    client = open_client(target, token, token_file, ca_file, insecure, timeout)
    with told_errors(target), client:
        found = list(islice(client.list_flaky_tests(tenant, repository, states=state or ()), limit))
    if output is ListFormat.IDS:
        print_ids(test.test_id for test in found)
    elif output is ListFormat.JSON:
        print_json(plain(found))
    else:
        rows = [
            {
                "state": STATES[test.state],
                "since": test.history[-1].time if test.history else None,
                "flaky": share(test.probability),
                "test": test.test_id,
                "history": evidence_words(test.evidence),
            }
            for test in found
        ]
        print_rows(rows, OutputFormat.TABLE, empty="No test is flaky.")


def classify(
    test: Annotated[str, typer.Argument(help="The test that failed.")],
    *,
    tenant: TenantOption,
    repository: RepositoryOption = None,
    message: Annotated[str, typer.Option(help="What the failure said of itself.", show_default=False)] = "",
    attempts: Annotated[
        int | None, typer.Option(help="Tries in this run, the failure included.", min=1, show_default=False)
    ] = None,
    passed: Annotated[int | None, typer.Option(help="Those of them that passed.", min=0, show_default=False)] = None,
    failed_tests: Annotated[
        int | None, typer.Option(help="Tests that failed in this run, this one included.", min=1, show_default=False)
    ] = None,
    executed_tests: Annotated[
        int | None, typer.Option(help="Tests that were executed in this run.", min=1, show_default=False)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="How long it took.", min=0, show_default=False)] = None,
    diff: DiffOption = None,
    base: BaseOption = None,
    path: PathOption = Path(),
    changed: ChangedOption = None,
    commit: CommitOption = "",
    target: TargetOption = DEFAULT_TARGET,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 10.0,
    output: Annotated[AnswerFormat, typer.Option("--output", "-o", help="text for people, json for programs.")] = (
        AnswerFormat.TEXT
    ),
) -> None:
    """Tell whether a failure is the code's, the test's or the infrastructure's, and what to do next.

    \b
    Examples:
      conductor tests classify tests/test_cart.py::test_total --tenant acme -r octocat/hello --message "timed out"
      conductor tests classify test_total --tenant acme -r octocat/hello --base main --attempts 3 --passed 1 -o json
    """
    from conductor_client.testing.json_form import plain
    from conductor_client.testing.requests import FailureFields
    from conductor_client.testing.told import run_fields
    from conductor_client.testing.words import classification_words

    told = {
        "failure_message": message,
        "attempt_count": attempts,
        "passed_attempt_count": passed,
        "failed_test_count": failed_tests,
        "executed_test_count": executed_tests,
        "duration": None if seconds is None else timedelta(seconds=seconds),
        **run_fields(repository, None, diff, base, path, changed or (), commit),
    }
    failure = cast(FailureFields, {name: value for name, value in told.items() if value is not None})
    client = open_client(target, token, token_file, ca_file, insecure, timeout)
    with told_errors(target), client:
        answer = client.classify_failure(tenant, test, **failure)
    if output is AnswerFormat.JSON:
        print_json(plain(answer))
    else:
        typer.echo("\n".join(classification_words(answer)))
