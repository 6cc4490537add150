"""`conductor bench`: the whole of it, in order."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from conductor_workbench.bench.children import Child
from conductor_workbench.bench.curve import measure_curve
from conductor_workbench.bench.endurance import measure_endurance
from conductor_workbench.bench.feature_reads import measure_feature_reads
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.ingestion import BUILD_EVENTS, measure_ingestion
from conductor_workbench.bench.machine import busy_cores, load_average, machine
from conductor_workbench.bench.many_models import measure_many_models
from conductor_workbench.bench.many_tests import measure_many_tests
from conductor_workbench.bench.model_runs import measure_model_runs
from conductor_workbench.bench.overload import measure_overload
from conductor_workbench.bench.parts import USUAL, Part
from conductor_workbench.bench.predictions import PredictionMeasurements
from conductor_workbench.bench.scene import Scene, prepared_scene
from conductor_workbench.bench.server_process import memory
from conductor_workbench.bench.stages import measure_stages
from conductor_workbench.bench.start_up import measure_start_up
from conductor_workbench.bench.tables import print_figures
from conductor_workbench.bench.targets import judge
from conductor_workbench.progress import ProgressDisplay

_FEATURE_SHARE = 0.2
"""Of ``seconds``, for each size of each way to read features: there are eighteen."""
_MODEL_SHARE = 0.1
_QUIET_SECONDS = 1.0


def run_bench(
    seconds: float, out: Path, parts: Collection[Part] = USUAL, build_event_count: int = BUILD_EVENTS
) -> Figures:
    """Measure on an embedded platform in a temporary folder; print the tables, write the figures to ``out``.

    Everything that was started is stopped again, whatever happens.

    Args:
        seconds: length of each measurement.
        out: the file.
        parts: what is measured.
        build_event_count: how many events of builds are ingested.

    Raises:
        ChildFailed: a part did not come up.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="conductor-bench-") as folder, ProgressDisplay() as display:
        directory = Path(folder)
        figures: Figures = {"machine": machine(), "finished_time": "", "seconds_each": seconds, "total_seconds": 0.0}
        for part in Part:
            if part in parts:
                figures |= _measure_part(part, directory, seconds, build_event_count, display)
                write_figures(figures, out)  # what follows may take an hour, and be interrupted
    figures["targets"] = judge(figures, parts)
    figures["finished_time"] = datetime.now(UTC).isoformat(timespec="seconds")
    figures["total_seconds"] = round(time.monotonic() - began)
    write_figures(figures, out)
    # Into a pipe as wide as it is: broken lines are no use there.
    console = Console(width=None if sys.stdout.isatty() else 140)
    print_figures(figures, console)
    console.print(f"Every figure: {out}", highlight=False, soft_wrap=True)
    return figures


def _measure(scene: Scene, seconds: float, display: ProgressDisplay) -> Figures:
    server_id = scene.platform.pid("serve")
    found: Figures = {
        "others": {"busy_cores": busy_cores(_QUIET_SECONDS), "load_average_at_start": load_average()},
        "memory": {"idle": memory(server_id)},
    }
    with Child("conductor_workbench.bench.load", scene.logs / "load.log") as generator:
        measure = PredictionMeasurements(scene, generator, seconds, display.say)
        # What is compared stands next to each other: on a shared machine, minutes are different from each other.
        found["unary"] = measure.unary()
        found["echo"] = measure.echo(secure=True)
        found["streamed"] = measure.streamed()
        found["unary_insecure"] = measure.insecure()
        found["echo_insecure"] = measure.echo(secure=False)
        found["unary_traced"] = measure.traced()
        found["health"] = measure.health()
        found["batch"] = measure.batch()
        found["tensors"] = measure.tensors()
        found["two_workers"] = measure.two_workers()
    found["memory"]["after_load"] = memory(server_id)
    display.say("Reading features, beside Redis and Feast")
    found["feature_read"] = measure_feature_reads(scene.platform.redis_url, seconds * _FEATURE_SHARE, scene.logs)
    display.say("Running the model alone")
    found["model_run"] = measure_model_runs(scene.model, seconds * _MODEL_SHARE)
    display.say("Starting servers")
    found["start_up"] = measure_start_up(scene)
    found["ratios"] = _ratios(found)
    found["others"]["busy_cores_at_end"] = busy_cores(_QUIET_SECONDS)
    return found


def _measure_part(
    part: Part, directory: Path, seconds: float, build_event_count: int, display: ProgressDisplay
) -> Figures:
    if part in (Part.INGESTION, Part.CURVE):
        measure = measure_ingestion if part is Part.INGESTION else measure_curve
        return {part.value: measure(directory / part, display.say, build_event_count)}
    if part is Part.TESTS:
        return {"many_tests": measure_many_tests(directory / part, seconds, display.say)}
    with prepared_scene(directory, display.say) as scene:
        match part:
            case Part.MODELS:
                found = measure_many_models(scene, display.say)
            case Part.OVERLOAD:
                found = measure_overload(scene, seconds, display.say)
            case Part.STAGES:
                found = measure_stages(scene, seconds)
            case Part.ENDURANCE:
                found = measure_endurance(scene, display.say)
            case _:
                return _measure(scene, seconds, display)
    return {part.value: found}


def _ratios(found: Figures) -> Figures:
    def per_s(name: str) -> float:
        return float(found[name]["saturation"]["throughput"]["median_per_s"])

    def cpu_ms(name: str) -> float:
        return float(found[name]["saturation"]["server_cpu_ms_per_request"])

    return {
        "unary_over_echo_throughput": significant(per_s("unary") / per_s("echo")),
        "streamed_over_echo_throughput": significant(per_s("streamed") / per_s("echo")),
        "streamed_over_echo_server_cpu": significant(cpu_ms("streamed") / cpu_ms("echo")),
        "streamed_over_unary_server_cpu": significant(cpu_ms("streamed") / cpu_ms("unary")),
        "echo_over_unary_throughput": significant(per_s("echo") / per_s("unary")),
        "unary_over_echo_server_cpu": significant(cpu_ms("unary") / cpu_ms("echo")),
        "echo_over_unary_throughput_insecure": significant(per_s("echo_insecure") / per_s("unary_insecure")),
        "unary_insecure_over_secure_throughput": significant(per_s("unary_insecure") / per_s("unary")),
    }


def write_figures(figures: Figures, out: Path) -> None:
    """Write ``out`` whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    partial.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(out)
