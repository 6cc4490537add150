"""Commands that need all the rooms at once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_json, print_record, print_rows
from conductor_workbench.bench.parts import USUAL, Part

if TYPE_CHECKING:
    from collections.abc import Mapping

demo_commands = typer.Typer()
datasets_commands = typer.Typer(no_args_is_help=True, help="Public data sets: list, fetch, convert to events.")

DirectoryOption = Annotated[Path, typer.Option("--directory", "-d", help="Where data, logs, keys and models are kept.")]


def up(
    directory: DirectoryOption = Path(".conductor"),
    port: Annotated[int, typer.Option(help="Port of the prediction server; 0 takes a free one.")] = 50051,
    events_port: Annotated[int, typer.Option(help="Port of the event service; 0 takes a free one.")] = 50052,
    admin_http_port: Annotated[int, typer.Option(help="Probes and metrics; 0 takes a free port.")] = 9464,
    admin_grpc_port: Annotated[int, typer.Option(help="channelz; 0 takes a free port.")] = 9564,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the prediction server.")] = 1,
    insecure: Annotated[bool, typer.Option("--insecure", help="Without TLS and tokens.")] = False,
) -> None:
    """Run database, Redis, ingestion, tailing writer and prediction server together, until Ctrl-C.

    CONDUCTOR_DATABASE_URL, CONDUCTOR_REDIS_URL and CONDUCTOR_MODEL_STORE name services of your own; what they don't
    name is started here. Keys for TLS and tokens are made in the directory at the first start.

    \b
    Examples:
      conductor up
      conductor up --workers 2 --port 0 --admin-http-port 0 --admin-grpc-port 0
    """
    from conductor_workbench.up import run_platform

    run_platform(
        directory,
        port=port,
        events_port=events_port,
        admin_http_port=admin_http_port,
        admin_grpc_port=admin_grpc_port,
        workers=workers,
        insecure=insecure,
    )


def token(
    tenant: Annotated[str, typer.Argument(help="Tenant that the token speaks for.")],
    directory: DirectoryOption = Path(".conductor"),
    hours: Annotated[float, typer.Option(min=0.01, help="Lifetime.")] = 12.0,
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", "-r", help="predict, publish, operate or models:admin (default predict and publish)."),
    ] = None,
) -> None:
    """Print a token for `conductor up`, signed by the keys in its directory.

    \b
    Examples:
      CONDUCTOR_TOKEN=$(conductor token acme) conductor predict build-duration …
      conductor token acme --role operate --role models:admin
    """
    from datetime import timedelta

    from conductor_rpc.roles import PREDICT, PUBLISH, SCOPES
    from conductor_workbench.keys import EmbeddedKeys

    wanted = roles or [PREDICT, PUBLISH]
    if unknown := set(wanted) - SCOPES:
        fail(f"no such role: {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCOPES))}", USAGE)
    keys = EmbeddedKeys(directory / "keys")
    if not keys.token_key.exists():
        fail(f"no keys in {keys.directory}: start `conductor up` first")
    typer.echo(keys.token(tenant, timedelta(hours=hours), wanted))


@demo_commands.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    directory: DirectoryOption = Path(".conductor/demo"),
    rate: Annotated[float, typer.Option(min=1, help="Requests a second of the latency measurement.")] = 100.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Run the whole way once: events in, features, training, export, publish, serve, replay; write a report.

    Uses the real builds under CONDUCTOR_DATA_HOME if there are any, else simulated ones. Takes a few minutes.

    \b
    Examples:
      conductor demo
      CONDUCTOR_DATA_HOME=~/data conductor demo -o json
      conductor demo tests
    """
    if context.invoked_subcommand is not None:
        return
    from conductor_workbench.demo.run import run_demo

    run_demo(directory, rate, output)


@demo_commands.command("tests")
def demo_tests(
    directory: DirectoryOption = Path(".conductor/demo-tests"),
    miss_rate: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Of a run's failures at most this share is to be missed.")
    ] = 0.1,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Ask which tests to run, and in which order, before each run of a history; write a report.

    Tells what was promised and what was missed, the minutes saved, how soon the first failure is found, and which tests
    are flaky. Uses the test runs of studies under CONDUCTOR_DATA_HOME (data set "tcp") if there are any, else simulated
    ones. Takes a few minutes.

    \b
    Examples:
      conductor demo tests
      CONDUCTOR_DATA_HOME=~/data conductor demo tests --miss-rate 0.05 -o json
    """
    from conductor_workbench.demo.tests.run import run_tests_demo

    run_tests_demo(directory, miss_rate, output)


def replay(
    events: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Event files (NDJSON, .gz too).")],
    train_until: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of each tenant's builds that is history.")
    ] = 0.8,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Open loop: requests a second, whether answered or not.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="host:port of a running prediction server.")] = None,
    events_target: Annotated[str | None, typer.Option(help="host:port of its event service.")] = None,
    keys: Annotated[Path, typer.Option(help="Folder of the keys of `conductor up`, for a target.")] = Path(
        ".conductor/keys"
    ),
    token_file: Annotated[Path | None, typer.Option(help="Token for a target, instead of the keys.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Authority of a target's certificate.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="The target has no TLS and no tokens.")] = False,
    predictions: Annotated[Path | None, typer.Option(help="Also write every prediction here, as NDJSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the embedded Conductor's folder.")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Replay a recorded history through the real stack, in the order in which it happened.

    Each build of the last part is asked for at the moment it was queued; its outcome is delivered when it ended, never
    earlier. Without --target an empty Conductor is started, fed and trained at each tenant's cut. With --target the
    events go to that one; it is trained too where CONDUCTOR_DATABASE_URL and CONDUCTOR_MODEL_STORE say where.

    Errors and coverage are over the builds that passed, beside the naive rules.

    \b
    Examples:
      conductor replay events.ndjson
      conductor replay a.ndjson b.ndjson.gz --train-until 0.8 --rate 100 -o json --predictions answers.ndjson
      conductor replay events.ndjson --target localhost:50051 --events-target localhost:50052
    """
    from conductor_workbench.replay.command import RemoteOptions, run_replay

    if (target is None) != (events_target is None):
        fail("--target and --events-target go together", USAGE)
    remote = None
    if target and events_target:
        remote = RemoteOptions(target, events_target, keys, token_file, ca_file, insecure)
    parent = Path(".conductor")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="replay-", dir=parent))
    try:
        run_replay(events, train_until, rate, remote, directory, keep, predictions, output)
    finally:
        if keep:
            typer.echo(f"Kept {directory}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def simulate(
    events: Annotated[
        Path | None, typer.Option("--events", "-e", help="Write the events here; without it nothing is written.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Write what is true of each build here, as NDJSON.")] = None,
    tenants: Annotated[int, typer.Option(min=1, help="Tenants; the last one is a cold start.")] = 4,
    builds: Annotated[int, typer.Option(min=1, help="Builds of each tenant.")] = 600,
    days: Annotated[int, typer.Option(min=1, help="Length of the history.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same builds, byte for byte.")] = 7,
    end: Annotated[
        str, typer.Option(help='When the history ends: a time, or "now" (then the events differ from run to run).')
    ] = "2025-03-07",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make builds of many tenants with known truth: seasons, drift, branches, flaky slowdowns, a cold start.

    \b
    Examples:
      conductor simulate --tenants 8 --builds 2000
      conductor simulate --events simulated.ndjson --truth truth.ndjson --seed 42
      conductor simulate --events simulated.ndjson --end now
    """
    from conductor_workbench.simulate.files import parse_end, write_simulation

    try:
        moment = parse_end(end)
    except ValueError:
        fail(f'--end takes a time such as 2025-03-07 or 2025-03-07T12:00:00Z, or "now", not {end!r}', USAGE)
    figures = write_simulation(events, truth, tenants=tenants, builds=builds, days=days, seed=seed, end=moment)
    print_rows(figures, output)


@datasets_commands.command("list")
def list_datasets(output: OutputOption = OutputFormat.TABLE) -> None:
    """List the data sets that Conductor knows, and which are here.

    \b
    Example:
      CONDUCTOR_DATA_HOME=~/data conductor datasets list
    """
    from conductor_workbench.datasets.catalogue import DATASETS, local_files

    print_rows(
        [
            {
                "name": dataset.name,
                "description": dataset.description,
                "licence": dataset.licence,
                "known_files": len(dataset.files),
                "local_files": len(local_files(dataset)),
                "address": dataset.address,
            }
            for dataset in DATASETS.values()
        ],
        output,
    )


@datasets_commands.command("pull")
def pull_dataset(
    name: Annotated[str, typer.Argument(help="Name from `conductor datasets list`.")],
    home: Annotated[Path | None, typer.Option(help="Where to; else CONDUCTOR_DATA_HOME.")] = None,
) -> None:
    """Fetch a data set's files, checked by their SHA-256. What is there already is not fetched again.

    \b
    Example:
      conductor datasets pull gha-build-duration --home ~/data
    """
    from conductor_workbench.datasets.catalogue import DATASETS, data_home, pull

    if name not in DATASETS:
        fail(f"no data set {name!r}; there are: {', '.join(DATASETS)}", USAGE)
    target = home or data_home()
    if target is None:
        fail("say where to: --home or CONDUCTOR_DATA_HOME", USAGE)
    try:
        paths = pull(DATASETS[name], target)
    except (OSError, ValueError) as error:
        fail(str(error))
    for path in paths:
        typer.echo(path)


@datasets_commands.command("convert")
def convert_dataset(
    name: Annotated[str, typer.Argument(help="Format of the files: gha-build-duration or tcp.")],
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Raw files, .gz too.")],
    events: Annotated[Path, typer.Option("--out", "-o", help="Event file to write, NDJSON; .gz compresses.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Turn raw files into events. Says what became of every row.

    gha-build-duration: a stretch of more than ten minutes in which none of a run's jobs was running is waiting (an
    approval, a re-run) and is taken out of its duration; a record touched long after its last job ends with that job.

    tcp: test executions by CI cycle, in the formats of RETECS and of Coleman, CSV or Parquet; a run for each cycle.

    \b
    Example:
      conductor datasets convert gha-build-duration raw__*.csv.gz -o events.ndjson
      conductor datasets convert tcp iofrol.csv.gz square@retrofit/features-engineered.csv -o tests.ndjson.gz
    """
    from conductor_workbench.datasets import gha_build_duration, tcp
    from conductor_workbench.events_file import write_events

    formats: Mapping[str, Any] = {kind.NAME: kind for kind in (gha_build_duration, tcp)}
    if name not in formats:
        fail(f"no format {name!r}; there are: {', '.join(formats)}", USAGE)
    report = formats[name].Report()
    try:
        count = write_events(formats[name].convert(files, report), events)
    except (OSError, ValueError) as error:
        fail(str(error))
    figures: dict[str, Any] = {"file": str(events), "events": count, **report.counts}
    if name == gha_build_duration.NAME:
        figures["days of waiting taken out"] = round(report.waiting_seconds / 86_400, 1)
    print_record(figures, OutputFormat.JSON if as_json else OutputFormat.TABLE)


def bench(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where to write the figures (default benchmarks/results/latest.json, or <part>.json)."
        ),
    ] = None,
    only: Annotated[Part | None, typer.Option(help="This part alone.", show_default=False)] = None,
    events: Annotated[int, typer.Option(min=10_000, help="Events of builds that are ingested.")] = 60_000,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of each measurement.")] = 5.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Measure ingestion, latency, throughput, feature reads, start-up and memory, each beside its floor.

    \b
    Example:
      conductor bench --seconds 10
      conductor bench --only ingestion
      conductor bench --only curve --events 10000000
    """
    from conductor_workbench.bench.run import run_bench

    results = Path("benchmarks/results")
    parts = USUAL if only is None else (only,)
    figures = run_bench(seconds, out or results / f"{only or 'latest'}.json", parts, events)
    if output is OutputFormat.JSON:
        print_json(figures)


def doctor(directory: DirectoryOption = Path(".conductor"), output: OutputOption = OutputFormat.TABLE) -> None:
    """Say what Conductor finds on this machine and what it would use. Exit code 1 if something is missing.

    \b
    Example:
      conductor doctor -o json
    """
    from conductor_workbench.doctor import examine

    findings = examine(directory)
    print_rows(findings, output)
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)
