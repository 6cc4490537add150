"""The alerts: of correct form, tested, told of in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer
import yaml

from conductor_client._command_group import app
from deploy.queries import DEPLOY, RULES, alerts

PROMETHEUS = DEPLOY / "prometheus"
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yml"))
RUNBOOK = DEPLOY.parent / "docs" / "runbook.md"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on this machine")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)


@needs_promtool
def test_rules_and_configuration_are_of_correct_form() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.name.split(".")[0])
def test_each_alert_fires_when_it_should_and_not_otherwise(file: Path) -> None:
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_rule_that_is_wrong_fails_its_test(tmp_path: Path) -> None:
    """With the factor of the fast burn forgotten, the unit tests of the service level fail."""
    shutil.copytree(PROMETHEUS, tmp_path / "p")
    rules = tmp_path / "p" / "rules" / "server.yml"
    text = rules.read_text()
    rules.write_text(text.replace("conductor_online_store_connected == 0", "conductor_online_store_connected < 0"))
    assert rules.read_text() != text
    done = promtool("test", "rules", str(tmp_path / "p" / "tests" / "server.test.yml"))
    assert done.returncode != 0
    assert "OnlineStoreDisconnected" in done.stdout + done.stderr


def test_each_alert_has_a_unit_test_in_which_it_fires() -> None:
    fired = {
        name
        for file in UNIT_TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for check in test["promql_expr_test"]
        for sample in check["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == set(alerts())


def test_each_unit_test_says_when_nothing_fires() -> None:
    """Firing everything would pass the others."""
    for file in UNIT_TESTS:
        calm = [
            check
            for test in yaml.safe_load(file.read_text())["tests"]
            for check in test["promql_expr_test"]
            if not check["exp_samples"]
        ]
        assert len(calm) >= 4, file.name


def test_each_alert_says_how_bad_it_is_and_what_to_read() -> None:
    sections = {line.removeprefix("## ").strip() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")}
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert name in sections
    assert sections <= set(alerts()), "no section is of an alert that there is no more"


def test_each_section_tells_what_it_means_and_what_to_do() -> None:
    parts = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    for part in parts:
        for what in ("**Means.**", "**Look.**", "**Do.**"):
            assert what in part, part.splitlines()[0]


def test_all_files_with_rules_are_loaded() -> None:
    assert yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"] == ["rules/*.yml"]
    assert len(RULES) == 5


def test_each_command_that_the_runbook_names_exists() -> None:
    group = typer.main.get_command(app)
    commands = re.findall(r"`conductor ((?:[a-z-]+ ?)+)", RUNBOOK.read_text())
    assert len(commands) > 10
    for words in commands:
        command, context = group, click.Context(group)
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(context, word)
            assert found is not None, f"conductor {words}"
            command = found
