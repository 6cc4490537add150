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
    from conductor_model_store.settings import ModelStoreSettings

commands = typer.Typer(no_args_is_help=True, help="Train models from the warehouse and publish them.")


TenantOption = Annotated[
    str | None, typer.Option("--tenant", "-t", help="Only this tenant's; else the global model and all tenants'.")
]
UntilOption = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"],
        help="Use only what was known before this time (UTC unless it says otherwise); default: now.",
    ),
]
PublishOption = Annotated[bool, typer.Option(help="Publish, so that servers take the models up.")]
StageOption = Annotated[
    bool, typer.Option("--stage", help="Store and sign, but move no channel: `conductor models promote` does, later.")
]
LakeOption = Annotated[
    str | None, typer.Option(help="Read from this lake (path or URL), not from the warehouse.", show_default=False)
]
LakeVersionOption = Annotated[
    str | None, typer.Option(help="Version of the lake; else the one in force.", show_default=False)
]
DatabaseOption = Annotated[str | None, typer.Option(help="The warehouse; else CONDUCTOR_DATABASE_URL.")]
StoreOption = Annotated[str | None, typer.Option(help="The model store; else CONDUCTOR_MODEL_STORE.")]


@commands.command("build-duration")
def build_duration(
    tenant: TenantOption = None,
    until: UntilOption = None,
    publish: PublishOption = True,
    stage: StageOption = False,
    as_served: Annotated[
        bool, typer.Option("--as-served", help="Features as they were known at the time, not as corrected since.")
    ] = False,
    lake: LakeOption = None,
    lake_version: LakeVersionOption = None,
    database_url: DatabaseOption = None,
    store: StoreOption = None,
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

    moment = _in_utc(until) or datetime.now(UTC)
    _check_flags(lake, lake_version, publish=publish, stage=stage)
    settings = ModelStoreSettings.from_flags(model_store=store)
    if publish:
        _warn_of_unsigned(settings)
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
    events: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, dir_okay=False, help="Event files with test runs; else the warehouse is read."),
    ] = None,
    tenant: TenantOption = None,
    until: UntilOption = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Judge the whole procedure on the history instead; publishes nothing.")
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="With --evaluate: write plots (SVG) into this folder.")] = None,
    publish: PublishOption = True,
    stage: StageOption = False,
    lake: LakeOption = None,
    lake_version: LakeVersionOption = None,
    database_url: DatabaseOption = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Train models that predict which tests fail, and which failures are flaky.

    Naive rules and trees that correct the base are compared on a time-ordered backtest; the best is calibrated and
    published, with what selections of tests can be promised on. A tenant with too little history is served by the
    global model, which is judged on tenants that it has not seen. The same data give the same models, byte for byte.
    --evaluate tells how all that would have done run by run: order, calibration, and selections with a promise.

    Examples:

    conductor train test-failure

    conductor train test-failure --tenant acme --until 2025-06-01 --no-publish -o json

    conductor train test-failure --lake s3://history/conductor --lake-version 5f3a9c --stage

    conductor train test-failure tests.ndjson.gz --evaluate --plots docs/models -o json
    """
    import psycopg

    from conductor_model_store import ModelStoreError
    from conductor_model_store.settings import ModelStoreSettings
    from conductor_training.bundles import ExportDiffers
    from conductor_training.test_failure import jobs, tables
    from conductor_training.test_failure.bundle import PREDICTOR
    from conductor_training.test_failure.model_rows import trained_row
    from conductor_training.test_failure.plots import write_plots
    from conductor_training.test_failure.sources import read_history
    from conductor_warehouse.lake import LakeError
    from conductor_warehouse.settings import DatabaseNotConfigured

    if plots is not None and not evaluate:
        fail("--plots goes with --evaluate", USAGE)
    if events and (lake is not None or database_url is not None):
        fail("event files, --lake and --database-url are three sources: say one of them", USAGE)
    _check_flags(lake, lake_version, publish=publish, stage=stage)
    moment = _in_utc(until)
    settings = ModelStoreSettings.from_flags(model_store=store)
    try:
        opened = settings.open() if publish and not evaluate else None
        with_global = tenant is None or (opened is not None and opened.resolve(PREDICTOR) is None)
        _progress("test runs")
        runs, origin = read_history(
            events or [],
            None if with_global else tenant,
            moment,
            lake=lake,
            lake_version=lake_version,
            url=database_url,
        )
        if evaluate:
            judged = dict(jobs.evaluate_tests(runs, _progress))
            if plots is not None:
                for tenant_id, evaluation in judged.items():
                    write_plots(evaluation, plots, tenant_id)
            if output is OutputFormat.JSON:
                figures = {tenant_id: evaluation.figures for tenant_id, evaluation in judged.items()}
                pooled = jobs.evaluate_global(runs, _progress)
                print_json(figures if pooled is None else {**figures, "(global)": pooled})
            else:
                print_rows(tables.evaluation_rows(judged), output, empty=_NO_RUNS)
            return
        if opened is not None:
            _warn_of_unsigned(settings)
        trained = jobs.train_tests(
            runs, opened, _progress, tenant_id=tenant, with_global=with_global, stage=stage, origin=origin
        )
        rows = [trained_row(one) for one in trained]
    except (
        OSError,
        ValueError,
        DatabaseNotConfigured,
        psycopg.Error,
        LakeError,
        ExportDiffers,
        ModelStoreError,
    ) as error:
        fail(str(error).strip())
    print_rows(rows, output, empty=_NO_RUNS)
    if not any(row["model"] for row in rows):
        raise typer.Exit(1)


_NO_RUNS = "There are no test runs: ingest some first, or give event files."
_ONLY_JSON = ("export_difference_seconds", "kilobytes", "digest")
"""Told to programs; a table would get too wide."""


def _progress(message: str) -> None:
    typer.echo(f"… {message}", err=True)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _check_flags(lake: str | None, lake_version: str | None, *, publish: bool, stage: bool) -> None:
    if lake_version is not None and lake is None:
        fail("--lake-version goes with --lake", USAGE)
    if stage and not publish:
        fail("--stage stores models, and --no-publish does not: say one of them", USAGE)


def _warn_of_unsigned(settings: ModelStoreSettings) -> None:
    if settings.model_signing_key is None:
        _progress("CONDUCTOR_MODEL_SIGNING_KEY is not set: models are published unsigned, and most servers refuse such")


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
