"""The commands, as a person or a script runs them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conductor_client._command_group import app
from warehouse.histories import events_of, random_history

EVENTS = events_of(random_history(seed=70, count=30))


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: bytes
    stderr: bytes


def conductor(*arguments: str, database_url: str | None, stdin: bytes = b"", redis_url: str | None = None) -> Run:
    environment = {"CONDUCTOR_DATABASE_URL": database_url, "CONDUCTOR_REDIS_URL": redis_url}
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Run(result.exit_code, result.stdout_bytes, result.stderr_bytes)


def _json(run: Run, code: int = 0) -> Any:
    assert run.returncode == code, run.stderr.decode()
    return json.loads(run.stdout)


def test_from_an_empty_database_to_features_and_dead_letters(database_url: str, redis_url: str, tmp_path: Path) -> None:
    file, zipped = tmp_path / "events.ndjson", tmp_path / "more.ndjson.gz"
    file.write_bytes(b"\n".join(EVENTS[:30]))
    zipped.write_bytes(gzip.compress(b"\n".join([*EVENTS[20:], b"garbage"])))

    run = conductor("ingest", str(file), database_url=database_url)
    assert run.returncode == 1
    assert b"conductor warehouse migrate" in run.stderr
    assert _json(conductor("warehouse", "status", "-o", "json", database_url=database_url), 1)["pending"]
    assert len(_json(conductor("warehouse", "migrate", "-o", "json", database_url=database_url))["applied_now"]) >= 4

    told = _json(conductor("ingest", str(file), str(zipped), "-o", "json", database_url=database_url), 3)
    assert told.pop("feature_rows") > len(EVENTS)
    [letter] = told.pop("first_dead_letters")
    assert "not JSON" in letter["reason"]
    assert told == {
        "received": len(EVENTS) + 11,
        "stored": len(EVENTS),
        "duplicates": 10,
        "expired": 0,
        "parked": 0,
        "dead_letters": 1,
    }

    status = _json(conductor("warehouse", "status", "-o", "json", database_url=database_url))
    assert status["current"]
    assert status["rows_not_online"] > 0
    assert conductor("warehouse", "tail", "--once", database_url=database_url, redis_url=redis_url).returncode == 0
    assert _json(conductor("warehouse", "status", "-o", "json", database_url=database_url))["rows_not_online"] == 0

    [listed] = _json(conductor("events", "dead-letter", "list", "-o", "json", database_url=database_url))
    shown = _json(
        conductor("events", "dead-letter", "show", str(listed["id"]), "-o", "json", database_url=database_url)
    )
    assert shown["payload"] == "garbage"
    again = _json(conductor("events", "dead-letter", "requeue", "--all", "-o", "json", database_url=database_url), 3)
    assert again["dead_letters"] == 1
    assert conductor("events", "dead-letter", "show", "999", database_url=database_url).returncode == 1


def test_standard_input_and_the_table_for_people(warehouse_url: str) -> None:
    run = conductor("ingest", "-", "--tenant", "acme", database_url=warehouse_url, stdin=b"\n".join(EVENTS))
    assert run.returncode == 3  # the other tenant's
    assert b"received" in run.stdout
    assert b"tenantid: is not the tenant" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("ingest", "nowhere.ndjson"), 2, b"no such file"),
        (("ingest", __file__, "--batch-size", "0"), 2, b"ingest_batch_size"),
        (("events", "dead-letter", "requeue"), 2, b"--all"),
        (("events", "dead-letter", "requeue", "1", "--all"), 2, b"--all"),
    ],
)
def test_wrong_usage_is_told(warehouse_url: str, arguments: tuple[str, ...], code: int, text: bytes) -> None:
    run = conductor(*arguments, database_url=warehouse_url)
    assert run.returncode == code
    assert text in run.stderr
    assert b"Traceback" not in run.stderr


def test_without_a_database_it_says_what_to_set(tmp_path: Path) -> None:
    run = conductor("warehouse", "migrate", database_url=None)
    assert run.returncode == 2
    assert b"CONDUCTOR_DATABASE_URL" in run.stderr
    run = conductor("warehouse", "migrate", database_url=f"postgresql://x@/y?host={tmp_path}")
    assert run.returncode == 1
    assert b"Traceback" not in run.stderr


def test_a_damaged_file_fails_and_the_others_are_taken_in(warehouse_url: str, tmp_path: Path) -> None:
    damaged, good = tmp_path / "damaged.gz", tmp_path / "good.ndjson"
    damaged.write_bytes(gzip.compress(b"\n".join(EVENTS))[:-30])
    good.write_bytes(b"\n".join(EVENTS))
    run = conductor("ingest", str(damaged), str(good), "-o", "json", database_url=warehouse_url)
    assert _json(run, 3)["stored"] == len(EVENTS)
    assert b"damaged gzip file" in run.stderr
