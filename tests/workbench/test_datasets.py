"""Raw files of the study become events; what can't be read is counted, not guessed."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from typer.testing import CliRunner

from conductor.events.v1.build_pb2 import BuildCompleted, BuildQueued
from conductor_warehouse.events import Event, parse
from conductor_workbench.cli import datasets_commands
from conductor_workbench.datasets import gha_build_duration
from conductor_workbench.datasets.catalogue import DATASETS, local_files
from conductor_workbench.events_file import read_lines, write_events

ROW = {
    "repo": "acme/widgets",
    "id_build": "101",
    "branch": "main",
    "commit_sha": "abc",
    "conclusion": "success",
    "workflow_event_trigger": "push",
    "issuer_name": "ada",
    "workflow_id": "7",
    "created_at": "2025-01-01T10:00:00Z",
    "updated_at": "2025-01-01T10:10:00Z",
    "gh_files_modified": "3",
    "gh_lines_added": "",
    "gh_lines_deleted": "-4",
    "file_types": "['.py', '.md']",
    "dockerfile_changed": "1",
    "job_details": json.dumps([{"job_start": "2025-01-01T10:00:05Z", "job_end": "2025-01-01T10:09:58Z"}]),
    "gh_is_pr": "True",
    "run_attempt_from_api": "2.0",
}


def raw_file(path: Path, *rows: dict[str, str]) -> Path:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    return path


def converted(path: Path, *rows: dict[str, str]) -> tuple[list[dict[str, object]], gha_build_duration.Report]:
    report = gha_build_duration.Report()
    source = raw_file(path / "raw.csv.gz", *rows)
    write_events(gha_build_duration.convert([source], report), path / "events.ndjson")
    return list(read_lines([path / "events.ndjson"])), report


def test_a_run_becomes_two_events_that_the_warehouse_takes(tmp_path: Path) -> None:
    events, report = converted(tmp_path, ROW)
    assert [event["type"] for event in events] == ["build.queued", "build.completed"]
    assert {event["tenantid"] for event in events} == {"acme"}
    queued = json_format.ParseDict(events[0]["data"], BuildQueued())
    assert queued.context.repository == "acme/widgets"
    assert queued.context.pipeline == "7"
    assert queued.context.change.modified_file_count == 3
    assert not queued.context.change.HasField("added_line_count"), "an empty cell is unknown, not zero"
    assert not queued.context.change.HasField("deleted_line_count"), "a negative count is unknown"
    assert queued.context.change.dockerfile_changed
    assert list(queued.context.change.file_extensions) == [".py", ".md"]
    completed = json_format.ParseDict(events[1]["data"], BuildCompleted())
    assert completed.duration.ToSeconds() == 600
    assert completed.attempt_count == 2
    assert all(isinstance(parse(json.dumps(event).encode()), Event) for event in events)
    assert report.counts["rows"] == 1


def test_nothing_of_a_queued_event_was_known_only_later(tmp_path: Path) -> None:
    later = ROW | {
        "updated_at": "2025-01-01T10:20:00Z",
        "conclusion": "failure",
        "gh_is_pr": "False",
        "job_details": "",
    }
    (first, *_), _ = converted(tmp_path, ROW)
    (second, *_), _ = converted(tmp_path, later)
    assert first == second


def test_what_cannot_be_read_is_counted_and_left_out(tmp_path: Path) -> None:
    rows = [
        ROW,
        ROW,
        ROW | {"id_build": "102", "created_at": "yesterday"},
        ROW | {"id_build": "103", "job_details": "{"},
        ROW | {"id_build": "104", "repo": "no-owner"},
        ROW | {"id_build": "105", "conclusion": ""},
        ROW | {"id_build": "106", "job_details": "", "updated_at": "2025-01-02T10:00:00Z"},
    ]
    events, report = converted(tmp_path, *rows)
    assert report.counts["rows"] == 7
    assert report.counts["rows left out: the same run again"] == 1
    assert sum(n for what, n in report.counts.items() if "unreadable" in what) == 2
    assert report.counts["runs that never ended: no build.completed"] == 1
    assert report.counts["runs whose duration can't be told (no jobs, over 6 h)"] == 1
    assert sorted(str(event["subject"]) for event in events) == ["101", "101", "103", "103", "105", "106", "106"]
    assert report.counts["runs whose jobs can't be read: waits can't be told"] == 1
    assert report.counts["events build.queued"] + report.counts["events build.completed"] == len(events)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    command = ["convert", "gha-build-duration", str(tmp_path / "other.csv"), "-o", str(tmp_path / "events.ndjson")]
    result = CliRunner().invoke(datasets_commands, command)
    assert result.exit_code == 1
    assert "not a raw file of gha-build-duration: no column" in result.output
    assert list(tmp_path.iterdir()) == [tmp_path / "other.csv"], "nothing half-written"


def test_the_real_files_convert_whole(tmp_path: Path) -> None:
    files = local_files(DATASETS["gha-build-duration"])
    if not files:
        pytest.skip("CONDUCTOR_DATA_HOME holds no gha-build-duration")
    report = gha_build_duration.Report()
    count = write_events(gha_build_duration.convert(files, report), tmp_path / "events.ndjson")
    rejected = [
        line
        for line in read_lines([tmp_path / "events.ndjson"])
        if not isinstance(parse(json.dumps(line).encode()), Event)
    ]
    assert rejected == []
    assert count == report.counts["events build.queued"] + report.counts["events build.completed"]
    assert sum(n for what, n in report.counts.items() if what.startswith("rows left out")) == 0
