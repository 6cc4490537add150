"""`conductor train test-failure`: from event files to a published model, and to the figures of a history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conductor_model_store import ModelStore
from conductor_model_store.settings import ModelStoreSettings
from conductor_training.cli import commands
from training.test_runs import as_events, make_runs


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    path.write_bytes(b"\n".join(as_events(make_runs(runs=60, tests=10))))
    return path


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(commands, ["test-failure", *map(str, arguments), "-o", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_models_are_trained_and_published(events: Path, tmp_path: Path) -> None:
    pooled, row, flaky = run(events, "--store", tmp_path / "models")
    assert (pooled["tenant"], row["tenant"], flaky["tenant"]) == ("(global)", "acme", "acme")
    assert row["model"] and row["version"] and row["napfd"] >= row["best_rule_napfd"] and row["selection_runs"] > 10
    assert pooled["model"] == "history" and pooled["version"] and pooled["selection_runs"] == 0
    assert flaky["predictor"] == "test-flakiness" and "tried again: 0" in flaky["skipped"]
    store: ModelStore = ModelStoreSettings.from_flags(model_store=str(tmp_path / "models")).open()
    for tenant, version in (("acme", row["version"]), (None, pooled["version"])):
        pointer = store.resolve("test-failure", tenant)
        assert pointer is not None and pointer.version == version
    assert store.resolve("test-flakiness", "acme") is None


def test_a_history_is_judged(events: Path, tmp_path: Path) -> None:
    figures = run(events, "--evaluate", "--plots", tmp_path)["acme"]
    assert figures["runs"] == 60 and figures["results"] == 600
    assert 0.5 < figures["orders"]["champion"]["apfd"] < figures["best_possible_apfd"] < 1
    assert [promise["alpha"] for promise in figures["promises"]] == [0.01, 0.05, 0.1]
    strict = figures["promises"][0]
    assert strict["of_them_with_a_threshold"] == 0 and strict["missed"] == strict["time_saved"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "acme-calibration.svg",
        "acme-gain.svg",
        "acme-selection.svg",
    }


def test_a_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.ndjson").write_text('{"specversion": "1.0"}\n')
    result = CliRunner().invoke(commands, ["test-failure", str(tmp_path / "bad.ndjson"), "--evaluate"])
    assert result.exit_code == 1 and "bad.ndjson: event 1:" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "flags", [["--stage", "--no-publish"], ["--lake-version", "123456"], ["--lake", "x", "FILE"], ["--plots", "."]]
)
def test_flags_that_say_two_things_are_refused(flags: list[str], events: Path) -> None:
    told = [str(events) if flag == "FILE" else flag for flag in flags]
    result = CliRunner().invoke(commands, ["test-failure", *told])
    assert result.exit_code == 2, result.output
