"""The bench's parts measure what they say, on real processes; how fast they find it is nothing to assert."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from client.conftest import Conductor, start
from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor_model_store import ModelStore
from conductor_workbench.bench import echo, overload, packed_reads
from conductor_workbench.bench.calls import Caller
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.echo_process import EchoProcess
from conductor_workbench.bench.figures import repeat, spread, windows
from conductor_workbench.bench.load import Endpoint
from conductor_workbench.bench.machine import machine
from conductor_workbench.bench.parts import Part
from conductor_workbench.bench.run import write_figures
from conductor_workbench.bench.scene import Scene
from conductor_workbench.bench.stages import STAGES, measure_stages
from conductor_workbench.bench.tables import print_figures
from conductor_workbench.bench.targets import TARGETS, judge
from conductor_workbench.embedded.child import ChildFailed
from conductor_workbench.keys import EmbeddedKeys
from server.harness import PREDICTOR, publish, request, write_features

SECONDS = 0.3
STREAM = "/conductor.prediction.v1.PredictionService/StreamBuildDurationPredictions"
LOAD = "conductor_workbench.bench.load"


def test_percentiles_carry_their_unit_and_scale() -> None:
    found = spread([0.001 * number for number in range(1, 101)], "ms", 1e3)
    assert (found["least_ms"], found["p50_ms"], found["p99_ms"], found["most_ms"]) == (1.0, 50.5, 99.01, 100.0)
    assert found["count"] == 100
    assert spread([], "ms") == {"count": 0}
    assert windows([3.0, 1.0, 2.0], "per_s") == {
        "median_per_s": 2.0, "least_per_s": 1.0, "most_per_s": 3.0, "windows": 3
    }  # fmt: skip


def test_a_measurement_is_repeated_a_few_times_at_least() -> None:
    calls: list[int] = []
    assert len(repeat(0.0, lambda: calls.append(1))) == len(calls) >= 5


@pytest.mark.parametrize("secure", [True, False])
def test_the_generator_gets_an_answer_to_every_request(tmp_path: Path, secure: bool) -> None:
    keys = EmbeddedKeys(tmp_path / "keys").ensure() if secure else None
    with (
        EchoProcess(tmp_path / "echo.log") as server,
        Child(LOAD, tmp_path / "load.log") as load,
    ):
        target = server.listen(b"answer", keys)
        authority = keys.ca_certificate.read_text() if keys else ""
        caller = Caller(load, Endpoint(target, echo.METHOD, (b"one", b"two"), authority), server.pid)
        at_rate, saturated = caller.at_rate(100.0, SECONDS), caller.saturate(SECONDS, in_flight=4)
    assert at_rate["latency"]["count"] == at_rate["generator_late"]["count"] == 100 * SECONDS
    assert at_rate["errors"] == saturated["errors"] == {}
    # The wait of a request that left late is part of its latency.
    assert at_rate["latency"]["mean_ms"] > at_rate["generator_late"]["mean_ms"]
    throughput = saturated["throughput"]
    # On a busy machine there are windows without an answer.
    assert 0 <= throughput["least_per_s"] <= throughput["median_per_s"] <= throughput["most_per_s"] > 0
    assert saturated["latency"]["count"] / SECONDS >= throughput["median_per_s"] * 0.5
    assert saturated["server_cpu_ms_per_request"] >= 0


def test_items_of_a_stream_are_awaited_like_calls(tmp_path: Path) -> None:
    payloads = tuple(
        PredictBuildDurationRequest(tenant_id="acme", contribution_count=count).SerializeToString() for count in (0, 1)
    )
    conductor = Conductor()
    server = start(conductor)
    with Child(LOAD, tmp_path / "load.log") as load:

        def caller(asked: tuple[bytes, ...]) -> Caller:
            return Caller(load, Endpoint(conductor.target, STREAM, asked, streamed=True), os.getpid())

        at_rate, saturated = caller(payloads[:1]).at_rate(100.0, SECONDS), caller(payloads[:1]).saturate(SECONDS, 4)
        with pytest.raises(ChildFailed, match="INVALID_ARGUMENT"):  # while warming up
            caller(payloads).saturate(SECONDS)
    server.stop(0).wait(5)
    assert at_rate["latency"]["count"] == 100 * SECONDS
    assert at_rate["errors"] == saturated["errors"] == {}
    assert saturated["latency"]["count"] / SECONDS >= saturated["throughput"]["median_per_s"] * 0.5
    assert saturated["throughput"]["most_per_s"] > 0


def test_requests_that_fail_are_told_and_have_no_latency(tmp_path: Path) -> None:
    with (
        EchoProcess(tmp_path / "echo.log") as server,
        Child(LOAD, tmp_path / "load.log") as load,
    ):
        endpoint = Endpoint(server.listen(b"", None), "/conductor.bench.Echo/None", (b"",))
        with pytest.raises(ChildFailed, match="UNIMPLEMENTED"):  # while warming up
            Caller(load, endpoint, server.pid).saturate(SECONDS)


def test_children_end_with_the_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), EchoProcess(tmp_path / "echo.log") as server:
        server.listen(b"", None)
        pid = server.pid
        raise KeyboardInterrupt
    assert not psutil.pid_exists(pid)


def test_feature_reads_find_what_was_written(redis_url: str) -> None:
    packed_reads.prepare(redis_url)
    for count in (1, 500):
        found = packed_reads.measure(redis_url, count, 0.05)
        assert set(found) == {"read", "read_block", "redis_mget"}
        assert all(len(samples) >= 5 and min(samples) > 0 for samples in found.values())


def test_stages_are_measured_for_one_tenant_and_for_many(redis_url: str, tmp_path: Path) -> None:
    build = request("acme").build
    write_features(redis_url, "acme")
    store = tmp_path / "models"
    publish(store, tenant_id="acme")
    version = ModelStore.open(store).resolve(PREDICTOR, "acme")
    assert version is not None
    platform: Any = SimpleNamespace(redis_url=redis_url, directory=tmp_path)
    scene = Scene(platform, "acme", (build,), ModelStore.open(store).load_pointer(version))
    figures = measure_stages(scene, 0.0)
    cases = {"together_1", "together_32", "together_256", "together_32_tenants"}
    for of_kind in (figures["with_contributions"], figures["without_contributions"]):
        assert {*of_kind} == cases
        for found in of_kind.values():
            assert {*found} == {*(f"{stage}_us" for stage in STAGES), "sum_us", "rounds"}
            assert found["sum_us"] > 0
            assert found["onnx_run_us"] > 0
    console = Console(record=True, width=200)
    print_figures({"stages": figures, "targets": []}, console)
    assert "with, 32 tenants" in console.export_text()


def test_every_target_is_judged_and_what_was_not_measured_is_not_met() -> None:
    assert [target["met"] for target in judge({}, tuple(Part))] == [False] * len(TARGETS)
    figures: dict[str, Any] = {}
    for target in TARGETS:
        place = figures
        for name in target.path[:-1]:
            place = place.setdefault(name, {})
        place[target.path[-1]] = 100_000.0 if target.at_least else 1.0
    assert all(target["met"] for target in judge(figures, tuple(Part)))


def test_figures_are_written_whole_and_name_no_machine(tmp_path: Path) -> None:
    out = tmp_path / "results" / "latest.json"
    write_figures({"machine": machine()}, out)
    assert json.loads(out.read_text())["machine"]["cores"] >= 1
    assert [path.name for path in out.parent.iterdir()] == ["latest.json"]


def test_the_capacity_is_the_highest_rate_that_is_kept_up_with():
    def rate(per_s: float, in_budget_per_s: float) -> dict[str, float]:
        return {"rate_per_s": per_s, "answered_in_budget_per_s": in_budget_per_s}

    assert overload._highest_kept_up_with([rate(100, 100), rate(300, 290), rate(200, 198)]) == 200
    assert overload._highest_kept_up_with([rate(100, 50), rate(300, 290)]) == 100
