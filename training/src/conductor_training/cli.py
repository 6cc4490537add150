"""`conductor train`: offline jobs that publish models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_json, print_rows
from conductor_training.tables import Row, model_row

if TYPE_CHECKING:
    from conductor.model.v1.model_manifest_pb2 import CandidateMetrics, ModelManifest

commands = typer.Typer(no_args_is_help=True, help="Train models from the warehouse and publish them.")


@commands.command("build-duration")
def build_duration(
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", "-t", help="Only this tenant's model; else the global one and all tenants'."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"],
            help="Use only what was known before this time (UTC unless it says otherwise); default: now.",
        ),
    ] = None,
    publish: Annotated[bool, typer.Option(help="Publish, so that servers take the models up.")] = True,
    stage: Annotated[
        bool,
        typer.Option("--stage", help="Store and sign, but move no channel: `conductor models promote` does, later."),
    ] = False,
    as_served: Annotated[
        bool, typer.Option("--as-served", help="Features as they were known at the time, not as corrected since.")
    ] = False,
    lake: Annotated[
        str | None, typer.Option(help="Read from this lake (path or URL), not from the warehouse.", show_default=False)
    ] = None,
    lake_version: Annotated[
        str | None, typer.Option(help="Version of the lake; else the one in force.", show_default=False)
    ] = None,
    database_url: Annotated[str | None, typer.Option(help="The warehouse; else CONDUCTOR_DATABASE_URL.")] = None,
    store: Annotated[str | None, typer.Option(help="The model store; else CONDUCTOR_MODEL_STORE.")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Train models that predict how long builds take.

    Candidates and naive rules are compared on a time-ordered backtest, and the best is published. A tenant with too
    little history is served by the global model. The same data give the same model, byte for byte.

    Examples:

    conductor train build-duration

    conductor train build-duration --tenant acme --until 2025-06-01 --no-publish -o json

    conductor train build-duration --tenant acme --stage

    conductor train build-duration --lake s3://history/conductor --lake-version 5f3a9c
    """
    import psycopg

    from conductor_model_store import ModelStoreError
    from conductor_model_store.settings import ModelStoreSettings
    from conductor_training.frame_checks import FrameRefused
    from conductor_training.jobs import lake_frames, train_build_duration, warehouse_frames
    from conductor_warehouse.lake import Lake, LakeError
    from conductor_warehouse.settings import DatabaseNotConfigured, WarehouseSettings

    moment = until or datetime.now(UTC)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if lake_version is not None and lake is None:
        fail("--lake-version goes with --lake", USAGE)
    if stage and not publish:
        fail("--stage stores models, and --no-publish does not: say one of them", USAGE)
    settings = ModelStoreSettings.from_flags(model_store=store)
    if publish and settings.model_signing_key is None:
        _progress("CONDUCTOR_MODEL_SIGNING_KEY is not set: models are published unsigned, and most servers refuse such")
    try:
        if lake is not None:
            opened = Lake.open(lake)
            read_frame = lake_frames(opened, opened.version(lake_version)[1], moment, as_served=as_served)
        else:
            url = WarehouseSettings.from_flags(database_url=database_url).require_database_url()
            read_frame = warehouse_frames(url, moment, as_served=as_served)
        jobs = train_build_duration(
            read_frame=read_frame,
            store=settings.open(),
            tenant_id=tenant,
            publish=publish,
            stage=stage,
            progress=_progress,
        )
        rows = [model_row(trained, _BLANK, _figures) for trained in jobs]
    except (DatabaseNotConfigured, psycopg.Error, LakeError, FrameRefused, ModelStoreError) as error:
        fail(str(error).strip())
    if output is OutputFormat.TABLE:
        rows = [{key: value for key, value in row.items() if key not in _ONLY_JSON} for row in rows]
    print_rows(rows, output, empty="There are no builds to train on: ingest some first.")
    if not any(row["version"] or row["model"] for row in rows if not row["skipped"]):
        raise typer.Exit(1)


@commands.command("test-failure")
def test_failure(
    events: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Event files with test runs.")],
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Judge the whole procedure on the history instead; publishes nothing.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="With --evaluate: write plots (SVG) into this folder.")] = None,
    publish: Annotated[bool, typer.Option(help="Publish, so that servers take the models up.")] = True,
    store: Annotated[str | None, typer.Option(help="The model store; else CONDUCTOR_MODEL_STORE.")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Train models that predict which tests fail, one for each tenant.

    Naive rules and trees that correct the base are compared on a time-ordered backtest; the best is calibrated and
    published. --evaluate tells how that would have done run by run: order, calibration, and selections with a promise.

    Examples:

    conductor train test-failure tests.ndjson.gz

    conductor train test-failure tests.ndjson.gz --evaluate --plots docs/models -o json
    """
    from conductor_model_store import ModelStoreError
    from conductor_model_store.settings import ModelStoreSettings
    from conductor_training.bundles import ExportDiffers
    from conductor_training.test_failure import jobs, tables
    from conductor_training.test_failure.plots import write_plots

    if plots is not None and not evaluate:
        fail("--plots goes with --evaluate", USAGE)
    try:
        runs = jobs.read_runs(events)
        if evaluate:
            judged = dict(jobs.evaluate_tests(runs, _progress))
            if plots is not None:
                for tenant_id, evaluation in judged.items():
                    write_plots(evaluation, plots, tenant_id)
            if output is OutputFormat.JSON:
                print_json({tenant_id: evaluation.figures for tenant_id, evaluation in judged.items()})
            else:
                print_rows(tables.evaluation_rows(judged), output, empty="There are no test runs in these files.")
            return
        opened = ModelStoreSettings.from_flags(model_store=store).open() if publish else None
        rows = [tables.trained_row(trained) for trained in jobs.train_tests(runs, opened, _progress)]
    except (OSError, ValueError, ExportDiffers, ModelStoreError) as error:
        fail(str(error).strip())
    print_rows(rows, output, empty="There are no test runs in these files.")
    if not any(row["model"] for row in rows):
        raise typer.Exit(1)


_ONLY_JSON = ("export_difference_seconds", "kilobytes", "digest")
"""Told to programs; a table would get too wide."""


def _progress(message: str) -> None:
    typer.echo(f"… {message}", err=True)


_BLANK: Row = {
    "backtest_mape": None,
    "backtest_mae_seconds": None,
    "best_rule": "",
    "best_rule_mae_seconds": None,
    "measured_coverage": None,
    "export_difference_seconds": None,
    "kilobytes": None,
    "digest": "",
}


def _figures(manifest: ModelManifest, chosen: CandidateMetrics, rules: Sequence[CandidateMetrics]) -> Row:
    best_rule = min(rules, key=lambda candidate: candidate.mae_seconds)
    return {
        "backtest_mape": chosen.mape,
        "backtest_mae_seconds": chosen.mae_seconds,
        "best_rule": best_rule.candidate,
        "best_rule_mae_seconds": best_rule.mae_seconds,
        "measured_coverage": manifest.calibration.measured_coverage,
        "export_difference_seconds": manifest.export_difference_seconds,
        "kilobytes": round(manifest.graph.size_bytes / 1000, 1),
        "digest": manifest.graph.digest,
    }
