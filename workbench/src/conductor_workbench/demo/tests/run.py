"""`conductor demo tests`: test intelligence, once the whole way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conductor_client.output import OutputFormat, print_json
from conductor_workbench.demo.tests.asking import TestReplay
from conductor_workbench.demo.tests.histories import Run, find_histories
from conductor_workbench.demo.tests.judging import Asked, figures
from conductor_workbench.demo.tests.report import write_report
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.events_file import write_events
from conductor_workbench.progress import ProgressDisplay
from conductor_workbench.replay.tables import wide_console

HISTORY_SHARE = 0.6
"""Of each tenant's runs: what is known before the first question."""
MOST_ASKED = 150
"""Runs of a tenant that are asked about, the latest; those before them are history, too."""
TRAININGS = 4
"""How often models are trained over the part that is asked for: an installation does so every night."""


def run_tests_demo(directory: Path, miss_rate: float, output: OutputFormat) -> None:
    """Runs in, features, training, a selection before each run; a table, ``summary.json`` and ``report.html``."""
    began = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / "platform", ignore_errors=True)
    with ProgressDisplay() as display:
        source, histories = find_histories()
        display.say(f"Test runs: {source}")
        first = {tenant: runs[: _history_count(len(runs))] for tenant, runs in histories.items()}
        then = {tenant: runs[len(first[tenant]) :] for tenant, runs in histories.items()}
        events = directory / "history.ndjson.gz"
        write_events((run.event for runs in first.values() for run in runs), events)
        settings = PlatformSettings(directory=directory / "platform", keep=False)
        with Platform(settings, display.say) as platform:
            display.say("Ingesting the history")
            platform.run("ingest", str(events))
            asked, flaky = asyncio.run(_replay(platform, then, miss_rate, display))
    tenants = {tenant: figures(runs, miss_rate) | {"flaky": flaky[tenant]} for tenant, runs in asked.items()}
    summary: dict[str, Any] = {
        "source": source,
        "miss_rate": miss_rate,
        "tenants": tenants,
        "total_seconds": time.monotonic() - began,
        "finished_time": datetime.now(UTC).isoformat(),
    }
    _write_json(summary, directory / "summary.json")
    write_report(summary, asked, directory / "report.html")
    if output is OutputFormat.JSON:
        print_json(summary)
    else:
        _print(summary, directory)


def _history_count(run_count: int) -> int:
    return max(int(run_count * HISTORY_SHARE), run_count - MOST_ASKED)


async def _replay(
    platform: Platform, histories: Mapping[str, Sequence[Run]], miss_rate: float, display: ProgressDisplay
) -> tuple[dict[str, list[Asked]], dict[str, list[dict[str, Any]]]]:
    asked: dict[str, list[Asked]] = {}
    flaky: dict[str, list[dict[str, Any]]] = {}
    async with TestReplay(platform, miss_rate, display.say) as replay:
        total, done = sum(map(len, histories.values())), 0
        for tenant, runs in histories.items():
            asked[tenant] = []
            for number, run in enumerate(runs):
                if number * TRAININGS // len(runs) != (number - 1) * TRAININGS // len(runs):
                    await replay.train(tenant, run)
                asked[tenant].append(await replay.ask(tenant, run))
                await replay.tell(run)
                done += 1
                display.step("Asking before each run", done, total)
            flaky[tenant] = await replay.flaky_tests(tenant, runs[-1].data.repository)
    return asked, flaky


def _write_json(summary: dict[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _print(summary: dict[str, Any], directory: Path) -> None:
    console = wide_console()
    console.print(f"\n[bold]Test runs:[/bold] {summary['source']}", highlight=False)
    for tenant, one in summary["tenants"].items():
        console.print(f"\n[bold]{tenant}[/bold]: {one['runs']:,} runs, {one['runs_with_a_failure']:,} with a failure")
        rate, latency = one.get("miss_rate", 0.0), one["latency_ms"]
        console.print(
            f"  selected with a promise of {one['miss_rate_promised']:.0%}: missed {rate:.1%} of a run's failures "
            f"({one['failures_missed']:,} of {one['failures']:,} in all); "
            f"{one['hours_saved'] * 60:,.0f} of {one['hours'] * 60:,.0f} minutes saved"
        )
        for name, order in one.get("orders", {}).items():
            console.print(
                f"  {name}: APFDc {order['apfdc']:.3f}, first failure after {order['first_failure_minutes']:.1f} min"
            )
        console.print(f"  a selection took {latency['p50']:.1f} ms (p50), {latency['p95']:.1f} ms (p95)")
        console.print(f"  flaky tests known: {len(one['flaky'])}")
    console.print(f"\nTook {summary['total_seconds']:.0f} s\n")
    console.print(f"Every figure: {directory / 'summary.json'}", highlight=False, soft_wrap=True)
    console.print(f"The report:   {directory / 'report.html'}", highlight=False, soft_wrap=True)
