"""``conductor features``, the commands that need no Feast."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from conductor_features.cli import commands
from conductor_features.settings import FeatureSettings
from conductor_features.views import PIPELINE_BUILDS, TENANT_LOAD, VIEWS
from conductor_features.writer import write_rows


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(commands, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_list_and_show_tell_what_is_defined() -> None:
    code, output, _ = invoke("list", "-o", "json")
    assert code == 0 and [row["view"] for row in json.loads(output)] == list(VIEWS)
    code, output, _ = invoke("show", PIPELINE_BUILDS.key, "-o", "json")
    told = json.loads(output)
    assert code == 0 and [row["field"] for row in told["fields"]] == list(PIPELINE_BUILDS.field_names)
    assert (told["owner"], told["lineage"]) == (PIPELINE_BUILDS.owner, list(PIPELINE_BUILDS.lineage))
    assert "tenant_load_v1" in invoke("list")[1]


def test_get_prints_a_row_and_fails_without_one(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_rows(client, TENANT_LOAD, [(("a=b",), datetime(2026, 11, 21, tzinfo=UTC), [1.0, None])])
    code, output, _ = invoke(
        "get", TENANT_LOAD.key, "--entity", "tenant_id=a=b", "--redis-url", redis_url, "-o", "json"
    )
    row = json.loads(output)
    assert code == 0 and row["event_time"] == "2026-11-21T00:00:00+00:00"
    assert (row["tenant_id"], row["queued_count_1h"], row["running_count"]) == ("a=b", 1.0, None)
    code, _, error = invoke("get", TENANT_LOAD.key, "--entity", "tenant_id=b", "--redis-url", redis_url)
    assert (code, error) == (1, "Error: tenant_load_v1 of b: not filled in yet\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nothing_v1"), "no view 'nothing_v1'; there are pipeline_builds_v1"),
        (("get", TENANT_LOAD.key, "--entity", "tenant=a"), "needs --entity tenant_id=…"),
        (("get", TENANT_LOAD.key, "--entity", "tenant_id="), "needs --entity tenant_id=…"),
        (("apply",), "say where the warehouse is"),
        (("materialize", "--since", "yesterday"), "--since 'yesterday' is no time"),
        (("materialize", "--since", "2026-01-02", "--until", "2026-01-01"), "--since must be before --until"),
    ],
)
def test_wrong_usage_is_told_apart_from_failure(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONDUCTOR_DATABASE_URL", raising=False)
    code, _, error = invoke(*arguments)
    assert code == 2 and message in error


def test_get_says_that_redis_is_down() -> None:
    code, _, error = invoke("get", TENANT_LOAD.key, "--entity", "tenant_id=a", "--redis-url", "redis://127.0.0.1:1/0")
    assert code == 1 and "can't read the online store" in error


def test_settings_come_from_flag_environment_file_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CONDUCTOR_REDIS_URL", "CONDUCTOR_FEATURE_TIMEOUT_SECONDS", "CONDUCTOR_SETTINGS_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert FeatureSettings().redis_url == "redis://127.0.0.1:6379/0"
    assert FeatureSettings().feature_timeout_seconds == 0.02
    (tmp_path / "conductor.toml").write_text('redis_url = "redis://file"\nfeature_timeout_seconds = 0.05\n')
    assert FeatureSettings().feature_timeout_seconds == 0.05
    monkeypatch.setenv("CONDUCTOR_REDIS_URL", "redis://environment")
    assert FeatureSettings().redis_url == "redis://environment"
    assert FeatureSettings(redis_url="redis://flag").redis_url == "redis://flag"


def test_the_server_s_side_loads_no_tools() -> None:
    modules = "conductor_features.reader, conductor_features.request_columns.builds, conductor_features.settings"
    heavy = "{'feast', 'pandas', 'psycopg', 'pyarrow', 'typer'}"
    check = f"import sys, {modules}; found = {heavy} & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
