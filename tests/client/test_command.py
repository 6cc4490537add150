"""The `conductor` command itself, as a process and with members of its own."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from conductor_client import _command_group, output


def conductor(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    script = f"import sys\nsys.argv = ['conductor', *{list(arguments)!r}]\n{code}\n"
    return subprocess.run(
        [sys.executable, "-c", script + "from conductor_client.command import main; main()"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version():
    process = conductor("--version")
    assert (process.returncode, process.stdout) == (0, f"conductor {version('conductor-client')}\n")


def test_help_names_the_commands_and_imports_nothing_heavy():
    report = (
        "import atexit\natexit.register(lambda: print('IMPORTED', *(n for n in "
        "('grpc', 'feast', 'pandas', 'xgboost', 'sklearn', 'onnxruntime', 'psycopg') if n in sys.modules)))"
    )
    process = conductor("--help", code=report)
    assert process.returncode == 0, process.stderr
    assert "predict" in process.stdout
    assert "models" in process.stdout
    assert process.stdout.splitlines()[-1].strip() == "IMPORTED"


def test_a_missing_extra_is_named():
    process = conductor("--help", code="sys.modules['typer'] = None")
    assert process.returncode == 1
    assert process.stderr == "Error: the conductor command needs typer: pip install 'conductor-client[cli]'\n"


def test_usage_errors():
    assert conductor("modls").returncode == 2
    assert "models" in conductor("modls").stderr
    assert conductor("predict", "build-duration", "--nonsense").returncode == 2
    assert conductor("predict", "nonsense").returncode == 2


group = typer.Typer(help="A group.")


@group.command()
def only() -> None:
    """Stay a subcommand, though there is only one."""
    output.print_rows([{"a": 1}], output.OutputFormat.JSON)


def plain(number: int) -> None:
    """Run a plain command."""
    raise typer.Exit(number)


@pytest.fixture
def run(monkeypatch):
    entries = {
        name: EntryPoint(name, value, "conductor.commands")
        for name, value in {
            "broken": "nowhere.at.all:commands",
            "group": "placeholder:group",
            "plain": "placeholder:plain",
        }.items()
    }
    monkeypatch.setitem(sys.modules, "placeholder", sys.modules[__name__])
    monkeypatch.setattr(_command_group, "members", lambda: entries)
    return lambda *arguments: CliRunner().invoke(_command_group.app, list(arguments))


def test_groups_and_functions_become_commands(run):
    assert '"a": 1' in run("group", "only").stdout
    assert [run("plain", str(code)).exit_code for code in (0, 1, 3)] == [0, 1, 3]
    assert run("plain", "x").exit_code == 2
    shown = run("--help").stdout
    assert "A group." in shown
    assert "Run a plain command." in shown


def test_a_broken_member_is_reported_and_harms_no_other(run):
    assert "not available: ModuleNotFoundError" in run("--help").stdout
    result = run("broken", "whatever", "--it", "takes")
    assert result.exit_code == 1
    assert "`conductor broken` is not available, because nowhere.at.all:commands" in result.stderr
    assert run("group", "only").exit_code == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (320, "5 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (273600, "3 d 4 h"),
        (-4, "-4 s"),
        (-90, "-1 min 30 s"),
    ],
)
def test_durations_read_as_a_person_writes_them(seconds, text):
    assert output.readable_duration(timedelta(seconds=seconds)) == text


def test_json_holds_what_json_can(capsys):
    value = {
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "duration": timedelta(minutes=1),
        "nan": float("nan"),
        "path": Path("x"),
        "list": (1, True, None, "é"),
    }
    output.print_record(value, output.OutputFormat.JSON)
    text = capsys.readouterr().out
    assert '"nan": null' in text
    assert '"duration": 60.0' in text
    assert '"time": "2026-01-02T00:00:00+00:00"' in text
    assert '"é"' in text
    output.print_record(value, output.OutputFormat.TABLE)
    assert "1 min" in capsys.readouterr().out


def test_a_piped_table_does_not_break_its_lines_and_takes_no_markup(capsys):
    output.print_rows([{"long_name": "[red]" + "x" * 300, "n": 1.23456}], output.OutputFormat.TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "[red]" + "x" * 300 in lines[1]
    assert "1.235" in lines[1]
    output.print_rows([], output.OutputFormat.TABLE, empty="Nothing here.")
    assert capsys.readouterr().err == "Nothing here.\n"
    output.print_rows([], output.OutputFormat.JSON)
    assert capsys.readouterr().out == "[]\n"
