"""`conductor demo`: the whole way, once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_client.output import OutputFormat, print_json
from conductor_workbench.datasets import gha_build_duration
from conductor_workbench.datasets.catalogue import DATASETS, local_files
from conductor_workbench.demo.report import write_report
from conductor_workbench.demo.spans import SpanReceiver
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.events_file import write_events
from conductor_workbench.progress import ProgressDisplay
from conductor_workbench.replay.command import write_predictions
from conductor_workbench.replay.embedded import platform_target, replay_on
from conductor_workbench.replay.history import Build, History, read_history
from conductor_workbench.replay.operations import Settle
from conductor_workbench.replay.run import Replay
from conductor_workbench.replay.scores import Answer, latency
from conductor_workbench.replay.tables import print_summary, wide_console
from conductor_workbench.simulate.files import write_simulation

HISTORY_SHARE = 0.8
LOAD_REQUESTS = 1_000
_SPANS_ARRIVE_SECONDS = 10.0


def run_demo(directory: Path, rate: float, output: OutputFormat) -> None:
    """Events in, features, training, export, publish, serve, replay; a table, ``summary.json`` and ``report.html``."""
    began = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    # Each run is a first one: what an earlier run learned must not help it.
    shutil.rmtree(directory / "platform", ignore_errors=True)
    with ProgressDisplay() as display, SpanReceiver() as spans:
        source, history = _builds(directory / "events.ndjson", display)
        display.say(f"Builds: {source}")
        settings = PlatformSettings(directory=directory / "platform", keep=False)
        with Platform(settings, display.say, environment=spans.environment_of_every_call) as platform:
            result = replay_on(platform, history, HISTORY_SHARE, progress=display.step, say=display.say)
            display.say(f"Asking {LOAD_REQUESTS:,} times at {rate:g} requests a second")
            spans.clear()
            loaded = asyncio.run(_load(platform, history, result.cuts, rate, display))
            startup = dict(platform.startup_seconds)
            stages = _stages(spans, len(loaded))
    summary: dict[str, Any] = {
        "data": {"source": source, "builds": len(history.builds), "tenants": history.tenants},
        "replay": result.summary(),
        "load": {
            "rate": rate,
            "requests": len(loaded),
            "methods": dict(Counter(answer.method or answer.error for answer in loaded)),
            "latency_seconds": latency(loaded),
            "stages": stages,
        },
        "startup_seconds": startup,
        "total_seconds": time.monotonic() - began,
        "finished_time": datetime.now(UTC).isoformat(),
    }
    write_predictions(result.answers, directory / "predictions.ndjson")
    _write_json(summary, directory / "summary.json")
    write_report(summary, result.answers, directory / "report.html")
    if output is OutputFormat.JSON:
        print_json(summary)
    else:
        _print(summary, directory)


def _builds(events: Path, display: ProgressDisplay) -> tuple[str, History]:
    files = local_files(DATASETS[gha_build_duration.NAME])
    if files:
        report = gha_build_duration.Report()
        display.say(f"Converting {len(files)} files of {gha_build_duration.NAME}")
        write_events(gha_build_duration.convert(files, report), events)
        source = f"real: {gha_build_duration.NAME}, {report.counts['rows']:,} runs in {len(files)} files"
        display.say(", ".join(f"{what}: {count:,}" for what, count in report.counts.items()))
    else:
        write_simulation(events, None, tenants=4, builds=600, days=60, seed=7)
        source = "simulated (CONDUCTOR_DATA_HOME holds no real builds)"
    return source, read_history([events])


async def _load(
    platform: Platform, history: History, cuts: dict[str, datetime], rate: float, display: ProgressDisplay
) -> list[Answer]:
    """Ask about the replayed builds again, as if they were queued now, at a fixed rate whether answers come or not."""
    asked = [build for build in history.builds if build.queued_time >= cuts[build.tenant_id]]
    # A server takes no feature that is younger than the question, so the questions are moved behind the last event.
    now = history.events[-1][0] + timedelta(seconds=1)
    builds = [_queued_at(asked[index % len(asked)], now) for index in range(LOAD_REQUESTS)]
    at_once = dict.fromkeys(cuts, now)
    settle = Settle(platform.database_url)
    async with platform_target(platform, settle) as target:
        await Replay(History(builds[:50]), at_once, target).run()  # connections and caches
        answers = await Replay(History(builds), at_once, target, rate=rate, progress=display.step).run()
    settle.close()
    return answers


def _queued_at(build: Build, moment: datetime) -> Build:
    context = BuildContext()
    context.CopyFrom(build.context)
    context.queued_time.FromDatetime(moment)
    return replace(build, context=context, queued_time=moment, outcome=None)


def _stages(spans: SpanReceiver, requests: int) -> dict[str, dict[str, float]]:
    """Wait until the spans of all requests have arrived; exporters send in batches."""
    deadline = time.monotonic() + _SPANS_ARRIVE_SECONDS
    while time.monotonic() < deadline:
        stages = spans.stages()
        if stages.get("model.run", {}).get("count", 0) >= requests:
            break
        time.sleep(0.1)
    return spans.stages()


def _write_json(summary: dict[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _print(summary: dict[str, Any], directory: Path) -> None:
    console = wide_console()
    console.print(f"\n[bold]Builds:[/bold] {summary['data']['source']}\n", highlight=False)
    print_summary(summary["replay"])
    load = summary["load"]["latency_seconds"]
    console.print(
        f"At {summary['load']['rate']:g} requests a second: p50 {load['p50'] * 1e3:.1f} ms, "
        f"p95 {load['p95'] * 1e3:.1f} ms, p99 {load['p99'] * 1e3:.1f} ms"
    )
    sizes = [model["size_bytes"] for model in summary["replay"]["models"] if "size_bytes" in model]
    console.print(f"Models: {len(sizes)}, {min(sizes) / 1e3:.0f}–{max(sizes) / 1e3:.0f} kB each")
    console.print(f"Took {summary['total_seconds']:.0f} s\n")
    console.print(f"Every figure: {directory / 'summary.json'}", highlight=False, soft_wrap=True)
    console.print(f"The report:   {directory / 'report.html'}", highlight=False, soft_wrap=True)
