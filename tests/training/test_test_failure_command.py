"""`conductor train test-failure`: from event files to a published model, and to the figures of a history."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from typer.testing import CliRunner

from conductor.events.v1 import test_pb2
from conductor_model_store import ModelStore
from conductor_model_store.settings import ModelStoreSettings
from conductor_training.cli import commands
from training.test_runs import make_runs

START = 1_700_000_000


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a tenant, and a build that does not matter here."""
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    lines: list[dict[str, Any]] = []
    for run in make_runs(runs=60, tests=10):
        data = test_pb2.TestCompleted(run_id=run.run_id, repository=run.repository, changed_paths=run.changed_paths)
        for name, moment in (("started_time", run.started), ("completed_time", run.completed)):
            getattr(data, name).FromSeconds(int(moment) + START)
        for test, outcome, duration in zip(run.tests, run.outcomes, run.durations, strict=True):
            result = data.results.add(test_id=test, outcome=2 if outcome else 1)
            result.duration.FromMilliseconds(int(duration * 1000))
        time = datetime.fromtimestamp(run.completed + START, UTC).isoformat()
        attributes = {"specversion": "1.0", "type": "test.completed", "id": run.run_id, "source": "ci", "time": time}
        lines.append({**attributes, "tenantid": "acme", "data": json_format.MessageToDict(data)})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(commands, ["test-failure", *map(str, arguments), "-o", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_model_is_trained_and_published(events: Path, tmp_path: Path) -> None:
    (row,) = run(events, "--store", tmp_path / "models")
    assert row["tenant"] == "acme" and row["model"] and row["version"]
    store: ModelStore = ModelStoreSettings.from_flags(model_store=str(tmp_path / "models")).open()
    assert store.resolve("test-failure", "acme") is not None


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
