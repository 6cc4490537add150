"""``conductor tests select|predict|prioritize``."""

from itertools import islice
from pathlib import Path
from typing import Annotated

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
from conductor_client.output import USAGE, fail, print_json
from conductor_client.testing.cli.options import (
    BaseOption,
    ChangedOption,
    CommitOption,
    DiffOption,
    LimitOption,
    ListFormat,
    ListOption,
    PathOption,
    RepositoryOption,
    TenantOption,
    TestsOption,
    print_ids,
    print_table,
    told_errors,
)


def select(
    *,
    tenant: TenantOption,
    repository: RepositoryOption = None,
    miss_rate: Annotated[
        float | None,
        typer.Option(help="Goal: at most this share of a run's failures missed, 0.001 to 0.5.", show_default=False),
    ] = None,
    time_share: Annotated[
        float | None, typer.Option(help="Or: at most this share of the tests' time.", show_default=False)
    ] = None,
    must_run: Annotated[
        list[str] | None,
        typer.Option(help='A test to run in any case, or a pattern with "*"; give it for each.', show_default=False),
    ] = None,
    must_run_distance: Annotated[
        int, typer.Option(help="Run what the change reaches by so many files; 0 is what is changed.", min=0)
    ] = 0,
    audit_share: Annotated[
        float, typer.Option(help="Of the tests left out, the share to run all the same, at random.")
    ] = 0.02,
    tests: TestsOption = None,
    diff: DiffOption = None,
    base: BaseOption = None,
    path: PathOption = Path(),
    changed: ChangedOption = None,
    commit: CommitOption = "",
    limit: LimitOption = 20,
    target: TargetOption = DEFAULT_TARGET,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 10.0,
    output: ListOption = ListFormat.TEXT,
) -> None:
    """Select the tests to run: those that keep a promise of few missed failures, or the best for the time.

    Fails (1) when no answer can be had: run everything then. An empty selection is an answer.

    \b
    Examples:
      conductor tests select --tenant acme -r octocat/hello --miss-rate 0.05 --base main
      conductor tests select --tenant acme -r octocat/hello --miss-rate 0.05 --base main --tests all.txt -o ids \\
        > chosen.txt || cp all.txt chosen.txt; xargs -d '\\n' -r pytest < chosen.txt
      git diff main... | conductor tests select --tenant acme -r octocat/hello --time-share 0.2 --diff - -o json
    """
    from conductor_client.testing.json_form import selection_json
    from conductor_client.testing.told import run_fields
    from conductor_client.testing.words import CHOICES, selection_words, share

    if (miss_rate is None) == (time_share is None):
        fail("give one goal: --miss-rate or --time-share", USAGE)
    run = run_fields(repository, tests, diff, base, path, changed or (), commit)
    client = open_client(target, token, token_file, ca_file, insecure, timeout)
    with told_errors(target), client:
        found = client.select_tests(
            tenant,
            miss_rate=miss_rate,
            time_share=time_share,
            must_run=must_run or (),
            must_run_distance=must_run_distance,
            audit_share=audit_share,
            **run,
        )
    if output is ListFormat.IDS:
        print_ids(found.selected_ids)
    elif output is ListFormat.JSON:
        print_json(selection_json(found))
    else:
        typer.echo("\n".join(selection_words(found)))
        rows = ({"probability": share(p), "test": name, "why": CHOICES[why]} for name, p, why in found.chosen)
        print_table(rows, len(found.selected), limit)


def predict(
    *,
    tenant: TenantOption,
    repository: RepositoryOption = None,
    explanations: Annotated[int, typer.Option(help="Tests to explain in JSON.", min=0, max=100)] = 10,
    tests: TestsOption = None,
    diff: DiffOption = None,
    base: BaseOption = None,
    path: PathOption = Path(),
    changed: ChangedOption = None,
    commit: CommitOption = "",
    limit: LimitOption = 20,
    target: TargetOption = DEFAULT_TARGET,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 10.0,
    output: ListOption = ListFormat.TEXT,
) -> None:
    """Tell how likely each test is to fail; likeliest first.

    \b
    Examples:
      conductor tests predict --tenant acme -r octocat/hello --base main
      conductor tests predict --tenant acme -r octocat/hello --changed src/cart.py --changed src/shop.py -o json
    """
    from conductor_client.testing.json_form import predictions_json
    from conductor_client.testing.told import run_fields
    from conductor_client.testing.words import FAILURES, origin, rests_on, share

    run = run_fields(repository, tests, diff, base, path, changed or (), commit)
    client = open_client(target, token, token_file, ca_file, insecure, timeout)
    with told_errors(target), client:
        found = client.predict_test_failures(tenant, explanation_count=explanations, **run)
    if output is ListFormat.IDS:
        print_ids(one.test_id for one in found.likeliest(len(found)))
    elif output is ListFormat.JSON:
        print_json(predictions_json(found))
    else:
        typer.echo("\n".join((f"{len(found):,} tests — {origin(found.provenance)}", *rests_on(found.basis))))
        likeliest = found.likeliest(limit)
        rows = ({"probability": share(p), "test": name, "why": FAILURES[why]} for name, p, why in likeliest)
        print_table(rows, len(found), limit)


def prioritize(
    *,
    tenant: TenantOption,
    repository: RepositoryOption = None,
    tests: TestsOption = None,
    diff: DiffOption = None,
    base: BaseOption = None,
    path: PathOption = Path(),
    changed: ChangedOption = None,
    commit: CommitOption = "",
    limit: LimitOption = 20,
    target: TargetOption = DEFAULT_TARGET,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 10.0,
    output: ListOption = ListFormat.TEXT,
) -> None:
    """Order tests so that failures are found early for the time spent. Ids are printed as they come.

    \b
    Examples:
      conductor tests prioritize --tenant acme -r octocat/hello --base main
      conductor tests prioritize --tenant acme -r octocat/hello --tests all.txt -o ids | xargs -d '\\n' -r pytest
    """
    from conductor_client.testing.json_form import order_json
    from conductor_client.testing.told import run_fields
    from conductor_client.testing.words import origin, rests_on, share

    run = run_fields(repository, tests, diff, base, path, changed or (), commit)
    client = open_client(target, token, token_file, ca_file, insecure, timeout)
    with told_errors(target), client, client.prioritize_tests(tenant, **run) as order:
        head = order.head
        if output is ListFormat.IDS:
            print_ids(one.test_id for one in order)
        elif output is ListFormat.JSON:
            print_json(order_json(head, order))
        else:
            typer.echo("\n".join((f"{head.total_count:,} tests — {origin(head.provenance)}", *rests_on(head.basis))))
            rows = ({"probability": share(p), "time": time, "test": name} for name, p, time in islice(order, limit))
            print_table(rows, head.total_count, limit)
