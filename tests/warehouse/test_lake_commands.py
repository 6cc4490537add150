"""`conductor lake`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
from typer.testing import CliRunner

from conductor_client._command_group import app
from conductor_warehouse.ingestion import ingest
from warehouse.lakes import (
    SMALL,
)
from warehouse.variants import variant, variant_warehouse  # noqa: F401


def conductor(*arguments: str, lake: Path, database_url: str | None = None, code: int = 0) -> Any:
    """What a command printed as JSON; None for nothing."""
    environment = {"CONDUCTOR_LAKE": str(lake), "CONDUCTOR_DATABASE_URL": database_url}
    result = CliRunner().invoke(app, ["lake", *arguments, "-o", "json"], env=environment)
    assert result.exit_code == code, (result.stderr, result.exception)
    return json.loads(result.stdout) if result.stdout.strip() else result.stderr


def test_the_commands(warehouse_url: str, database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    for arguments in (["list"], ["verify"], ["list", "--version", "0123456"]):
        assert "lake" in conductor(*arguments, lake=folder, code=1)
    assert "CONDUCTOR_DATABASE_URL" in conductor("export", lake=folder, code=2)
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        ingest(connection, SMALL[:4])
        first = conductor("export", lake=folder, database_url=warehouse_url)
        assert first["changed"] and first["files"] > 0 and first["generation"] == 1
        assert not conductor("export", lake=folder, database_url=warehouse_url)["changed"]
        ingest(connection, SMALL[4:])
    second = conductor("export", "--table", "builds", "-t", "acme", lake=folder, database_url=warehouse_url)
    assert second["changed"] and second["parts"] == 1
    assert "no table nonsense" in conductor(
        "export", "--table", "nonsense", lake=folder, database_url=warehouse_url, code=2
    )
    listed = conductor("list", "--tenant", "acme", lake=folder)
    assert {row["tenant"] for row in listed} == {"acme"} and "builds" in {row["table"] for row in listed}
    files = conductor("list", "--table", "builds", "--files", lake=folder)
    assert all((folder / row["key"]).stat().st_size == row["bytes"] for row in files)
    versions = conductor("list", "--versions", lake=folder)
    assert [row["version"] for row in versions] == [second["version"], first["version"]]
    old = conductor("list", "--version", first["version"][:8], "--table", "builds", "--files", lake=folder)
    assert len(old) < len(files)
    conductor("verify", "--all", lake=folder)
    (folder / files[0]["key"]).write_bytes(b"")
    [damaged] = conductor("verify", lake=folder, code=1)
    assert damaged["checked"] == files[0]["key"]
    assert not conductor("vacuum", "--days", "1", "--dry-run", lake=folder)["deleted"]
    assert conductor("vacuum", "--days", "1", "--keep", first["version"], lake=folder)["files"] == 0
    assert "migrate" in conductor("export", lake=folder, database_url=database_url, code=1)
