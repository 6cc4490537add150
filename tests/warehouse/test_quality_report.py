"""`conductor quality …`: the report, and what an operator does with parked batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from conductor_warehouse.cli import quality_commands
from conductor_warehouse.data_quality import report, report_page
from conductor_warehouse.ingestion import ingest
from warehouse.histories import events_of
from warehouse.test_data_quality import HISTORY, LATER, WRONG, builds

RUNNER = CliRunner()


def today() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def parked(warehouse: psycopg.Connection) -> psycopg.Connection:
    """A history, the same once more, letters, and a batch that was parked."""
    ingest(warehouse, [*events_of(HISTORY), b'{"specversion": "1.0", "tenantid": "acme"}'], "acme")
    ingest(warehouse, events_of(HISTORY))
    assert ingest(warehouse, events_of(WRONG)).parked == 600
    return warehouse


def test_the_report_tells_what_came_in(parked: psycopg.Connection) -> None:
    made = report.make(parked, "acme", today().date(), today().date())
    [completed, queued] = made.types
    assert (completed.event_type, queued.event_type) == ("build.completed", "build.queued")
    assert (completed.batches, completed.received, completed.stored, completed.duplicates) == (2, 600, 300, 300)
    assert made.dead_letters == 1
    assert [batch["status"] for batch in made.parked] == ["parked"]
    assert [one["severity"] for one in made.findings][:1] == ["error"]
    fields = {field.name: field for field in completed.fields}
    duration = fields["duration"]
    durations = sorted(build.duration or 0 for build in HISTORY)
    assert (duration.minimum, duration.maximum) == (durations[0], durations[-1])
    assert duration.quantiles[2] == pytest.approx(durations[150], rel=0.1)
    assert (duration.completeness, duration.completeness_before, duration.stability_index) == (1.0, None, None)


def test_it_compares_with_the_period_before(parked: psycopg.Connection) -> None:
    parked.execute("UPDATE data_profiles SET received_date = received_date - 1")
    ingest(parked, events_of(builds("n", LATER, factor=0.2)))
    day = today().date()
    made = report.make(parked, "acme", day, day)
    completed = next(one for one in made.types if one.event_type == "build.completed")
    fields = {field.name: field for field in completed.fields}
    assert fields["duration"].stability_index is not None
    assert fields["duration"].stability_index > report_page.MAJOR
    assert fields["duration"].ks_distance is not None
    # Both days together have nothing before them.
    both = report.make(parked, "acme", day - timedelta(days=1), day)
    assert next(one for one in both.types if one.event_type == "build.completed").stored == 600
    with pytest.raises(ValueError, match="ends"):
        report.make(parked, "acme", day, day - timedelta(days=1))


def test_it_is_the_tenants_own(parked: psycopg.Connection) -> None:
    made = report.make(parked, "globex", today().date(), today().date())
    assert (made.types, made.dead_letters, made.findings, made.parked) == ((), 0, [], [])
    assert "No events came in" in report_page.to_html(made)


def test_commands(parked: psycopg.Connection, warehouse_url: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = RUNNER.invoke(quality_commands, [*arguments, "--database-url", warehouse_url])
        assert result.exit_code == 0, result.output
        return result.output

    page = tmp_path / "report.html"
    told = json.loads(run("report", "--tenant", "acme", "--html", str(page), "-o", "json"))
    assert {one["event_type"] for one in told["types"]} == {"build.queued", "build.completed"}
    assert "times shorter than the same pipelines had" in page.read_text()
    assert "<script" not in page.read_text()
    assert "build.completed" in run("report", "--tenant", "acme")
    [batch] = json.loads(run("parked", "list", "-o", "json"))
    shown = json.loads(run("parked", "show", str(batch["id"]), "--events", "2", "-o", "json"))
    assert len(shown["events_shown"]) == 2
    assert json.loads(run("parked", "release", str(batch["id"]), "-o", "json"))["stored"] == 600
    assert json.loads(run("parked", "list", "-o", "json")) == []
    again = RUNNER.invoke(quality_commands, ["parked", "discard", "1", "--yes", "--database-url", warehouse_url])
    assert again.exit_code == 1
    assert "released already" in again.output


def test_what_people_wrote_is_escaped(warehouse: psycopg.Connection) -> None:
    evil = "<script>alert(1)</script>"
    made = report.QualityReport(evil, LATER.date(), LATER.date(), LATER, findings=[], parked=[])
    assert evil not in report_page.to_html(made)
