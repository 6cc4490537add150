"""`conductor tests …`, typed as a person or a CI job would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import Result
from google.rpc.error_details_pb2 import ErrorInfo
from typer.testing import CliRunner

from changes.git_repository import GitRepository
from client.conftest import Refusal
from client.testing_answers import IDS, ROUNDED_UP, TestAnswers, serving
from conductor_client.testing import cli
from conductor_features.changes.diff import parse_diff

Run = Callable[..., Result]


@pytest.fixture
def conductor() -> Iterator[TestAnswers]:
    with serving() as servicer:
        yield servicer


@pytest.fixture
def run(conductor: TestAnswers, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CONDUCTOR_TARGET", conductor.target)
    monkeypatch.setenv("CONDUCTOR_TENANT", "acme")
    return lambda command, *more, **named: CliRunner().invoke(
        cli.tests_commands, [command, *more, "--insecure"], **named
    )


REPOSITORY = ("-r", "octocat/hello")
SELECT = ("select", *REPOSITORY, "--miss-rate", "0.05")


def test_a_selection_in_words(run):
    result = run(*SELECT)
    assert result.exit_code == 0, result.output
    words, table = result.stdout.split("\n\n")
    assert words.splitlines() == [
        "2 of 3 tests: about 1 min 30 s of 10 min, 15 % of the time — "
        "model test-failure/acme 0123456789abcdef, features 12 s old",
        "promise: at most 5 % of a run's failures missed, calibrated on 250 runs with a failure up to 2023-11-14; "
        "on 120 runs from 2023-07-22 to 2023-11-14 3 % were missed",
        "expected failures among the tests left out: 0.125",
        "        1 left out: unlikely to fail",
        "        1 run: likely enough to fail",
        "        1 run: never ran",
        "by the graph of the code at abc",
        "tests that never ran: 1",
    ]
    assert [line.split() for line in table.splitlines()] == [
        ["probability", "test", "why"],
        ["6.25", "%", *IDS[2].split(), "never", "ran"],
        ["50", "%", IDS[1], "likely", "enough", "to", "fail"],
    ]


@pytest.mark.parametrize(
    ("label", "words"), [("cut", "more tests than a server holds"), ("filling", "being filled in")]
)
def test_what_is_not_known_of_all_known_tests_is_told(run, conductor, label, words):
    assert words not in run(*SELECT).stdout
    setattr(conductor.selection.basis, f"known_tests_{label}", True)
    [line] = [line for line in run(*SELECT).stdout.splitlines() if words in line]
    assert "nothing is said of" in line
    told = json.loads(run(*SELECT, "-o", "json").stdout)["basis"]
    assert (told[f"known_tests_{label}"], told["never_run_count"]) == (True, 1)


def test_ids_are_for_test_runners(run, conductor):
    assert run(*SELECT, "-o", "ids").stdout == f"{IDS[2]}\n{IDS[1]}\n"
    assert run("predict", *REPOSITORY, "-o", "ids").stdout.splitlines() == [IDS[1], IDS[0], IDS[2]]
    assert run("prioritize", *REPOSITORY, "-o", "ids").stdout.splitlines() == IDS
    assert run("flaky", *REPOSITORY, "-o", "ids").stdout.splitlines() == IDS
    conductor.selection.test_ids[1] = "two\nlines"
    result = run(*SELECT, "-o", "ids")
    assert (result.exit_code, result.stderr) == (1, "Error: 'two\\nlines' is of several lines: use -o json\n")


def test_json(run):
    selection = json.loads(run(*SELECT, "-o", "json").stdout)
    assert selection["selected"] == [IDS[2], IDS[1]]
    assert selection["tests"][0] == {"test_id": IDS[0], "probability": 0.125, "reason": "unlikely"}
    assert (selection["promise"]["basis"], selection["promise"]["threshold"]) == ("calibrated", 0.125)
    assert selection["promise"]["realised"]["end"] == "2023-11-14T22:13:20+00:00"
    assert (selection["selected_duration"], selection["basis"]["impact"]) == (90, "graph")
    assert (selection["provenance"]["method"], "test_ids" in selection) == ("model", False)
    predicted = json.loads(run("predict", *REPOSITORY, "-o", "json").stdout)
    assert [test["reason"] for test in predicted["tests"]] == ["failed_recently", "unspecified", "never_ran"]
    assert predicted["explanations"][0]["contributions"][1] == {"feature": "age", "value": None, "effect": -0.02}
    assert predicted["explanations"][0]["impact"]["distance"] == 2
    order = json.loads(run("prioritize", *REPOSITORY, "-o", "json").stdout)
    assert order["total_count"] == 3
    assert order["tests"][2] == {"test_id": IDS[2], "probability": 0.125, "expected_duration": 60}
    [first, *_] = json.loads(run("flaky", *REPOSITORY, "-o", "json").stdout)
    assert (first["state"], first["history"][0]["state"]) == ("quarantined", "active")
    assert first["evidence"]["flip_count"] == 9
    verdict = json.loads(run("classify", "t", *REPOSITORY, "-o", "json").stdout)
    assert (verdict["verdict"], verdict["flaky"], verdict["next_step"]) == ("flaky", 0.625, "rerun_test")


def test_predictions_and_orders_in_words(run):
    predicted = run("predict", *REPOSITORY, "--limit", "2").stdout
    assert predicted.startswith("3 tests — model test-failure/acme")
    assert "50 %" in predicted
    assert "failed not long ago" in predicted
    assert IDS[2] not in predicted
    assert "… and 1 more: --limit, -o json or -o ids lists them" in predicted
    order = run("prioritize", *REPOSITORY).stdout
    assert order.index(IDS[0]) < order.index(IDS[1]) < order.index(IDS[2])
    assert "1 min" in order


def test_flaky_tests_in_words(run, conductor):
    told = run("flaky", *REPOSITORY, "--state", "fixed", "--state", "active").stdout
    assert "quarantined" in told
    assert "12 of 100 results failed; 9 flips, 4 of them on equal code" in told
    assert list(conductor.requests[0].states) == [3, 1]
    assert len(run("flaky", *REPOSITORY, "--limit", "1", "-o", "ids").stdout.splitlines()) == 1
    conductor.flaky = []
    assert run("flaky", *REPOSITORY).stderr == "No test is flaky.\n"


def test_a_verdict_in_words(run, conductor):
    counts = ["--attempts", "3", "--passed", "0", "--failed-tests", "2", "--executed-tests", "9", "--seconds", "1.5"]
    result = run("classify", "test_it", *REPOSITORY, "--message", "timed out", *counts)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Flaky (real 25 %, flaky 62.5 %, infrastructure 12.5 %) — model test-failure/acme")
    assert "  it passed when it was tried again" in lines
    assert "next: try the test again: that tells flaky from real" in lines
    [request] = conductor.requests
    assert (request.test_id, request.failure_message, request.attempt_count) == ("test_it", "timed out", 3)
    assert (request.passed_attempt_count, request.HasField("passed_attempt_count")) == (0, True)
    assert (request.failed_test_count, request.executed_test_count) == (2, 9)
    assert request.duration.ToMilliseconds() == 1_500


@pytest.mark.parametrize(
    ("basis", "words"),
    [
        (2, "too few past runs with a failure"),
        (3, "more was missed lately than promised"),
        (4, "the calibration is too old"),
        (5, "no model answered that was calibrated for the tenant"),
        (9, "on a ground that this client doesn't know"),
    ],
)
def test_a_promise_that_can_not_be_made_says_why(run, conductor, basis, words):
    conductor.selection.promise.basis = basis
    conductor.selection.promise.ClearField("threshold")
    why = words if basis == 9 else f"everything is run: {words}"
    assert f"promise: at most 5 % of a run's failures missed; {why}" in run(*SELECT).stdout


def test_fallbacks_do_not_pass_as_the_model(run, conductor):
    conductor.selection.provenance.method = 3
    conductor.selection.basis.change, conductor.selection.basis.unreadable_count = 0, 4
    told = run(*SELECT).stdout
    assert "no model: from the tests' own histories" in told
    assert "no change was told: by the tests' histories alone" in told
    assert "tests whose history could not be read, and that are not left out: 4" in told
    conductor.selection.basis.change, conductor.selection.basis.impact = 2, 1
    conductor.selection.basis.unplaced_paths.extend(["go.mod", "a", "b", "c", "d", "e"])
    conductor.selection.basis.diff_problems.append("x.py: cut off")
    told = run(*SELECT).stdout
    assert "no graph of the code" in told
    assert "may reach anything: go.mod, a, b, c, d and 1 more" in told
    assert "not read of the diff: x.py: cut off" in told


def test_everything_that_is_told_is_sent(run, conductor, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    tests = tmp_path / "tests.txt"
    tests.write_text("a\r\n\nb c\na\n")
    result = run(
        *("select", *REPOSITORY, "--time-share", "0.25", "--must-run", "smoke/*", "--must-run", "x"),
        *("--must-run-distance", "2", "--audit-share", "0", "--tests", str(tests), "--commit", "abc"),
        *("--changed", "a.py", "--changed", "b.py", "--token-file", str(token), "--timeout", "5"),
    )
    assert result.exit_code == 0, result.output
    [request] = conductor.requests
    assert (request.tenant_id, request.run.repository, request.run.commit_sha) == ("acme", "octocat/hello", "abc")
    assert (request.time_share, list(request.must_run), request.must_run_distance) == (0.25, ["smoke/*", "x"], 2)
    assert (request.audit_share, request.HasField("audit_share")) == (0, True)
    assert list(request.run.test_ids) == ["a", "b c"]
    assert [file.path for file in request.run.changed_files] == ["a.py", "b.py"]
    assert conductor.metadata[0]["authorization"] == "Bearer secret"
    assert 3 < conductor.times_left[0] <= 5 * ROUNDED_UP


def test_a_diff_from_a_file_or_standard_input(run, conductor, tmp_path):
    (tmp_path / "diff").write_bytes(b"--- a\n+++ b\n\xff")
    assert run("predict", *REPOSITORY, "--diff", str(tmp_path / "diff"), "--tests", "-", input="a\nb\n").exit_code == 0
    assert run("predict", *REPOSITORY, "--diff", "-", input=b"--- a\n\xff").exit_code == 0
    first, second = (request.run for request in conductor.requests)
    assert (first.diff, list(first.test_ids)) == (b"--- a\n+++ b\n\xff", ["a", "b"])
    assert (second.diff, list(second.test_ids)) == (b"--- a\n\xff", [])


@pytest.fixture
def checkout(tmp_path: Path) -> GitRepository:
    """On a branch that has gone on, as main has."""
    repository = GitRepository(tmp_path / "hello")
    repository.commit({"kept.py": "a\nb\nc\nd\ne\nf\n", "old.py": "x = 1\n" * 20, "gone.py": "y\n"})
    repository.git("checkout", "-q", "-b", "feature")
    return repository


def change(checkout: GitRepository) -> None:
    checkout.git("mv", "old.py", "new.py")
    checkout.git("rm", "-q", "gone.py")
    checkout.write({"kept.py": "a\nb\nc\nD\ne\nf\n", "added.py": "z\n"})
    checkout.git("add", ".")


def test_the_change_since_a_branch(run, conductor, checkout):
    change(checkout)
    assert run("predict", "--base", "main", "--path", str(checkout.path)).exit_code == 0
    [request] = conductor.requests
    assert request.run.repository == "hello"
    files = {file.path: (file.change, file.old_ranges) for file in parse_diff(request.run.diff)}
    assert {path: kind for path, (kind, _) in files.items()} == {
        "added.py": "added",
        "gone.py": "deleted",
        "kept.py": "modified",
        "new.py": "renamed",
    }
    assert files["kept.py"][1] == ((4, 4),)
    assert b"\n b\n" not in request.run.diff  # what is around a change says nothing


def test_a_change_too_large_for_a_diff_is_told_by_its_files(run, conductor, checkout):
    change(checkout)
    checkout.write({"generated.py": "x" * (3 << 20)})
    checkout.git("add", ".")
    assert run("predict", *REPOSITORY, "--base", "main", "--path", str(checkout.path)).exit_code == 0
    [request] = conductor.requests
    assert not request.run.diff
    assert [(file.path, file.old_path, file.kind) for file in request.run.changed_files] == [
        ("added.py", "", 1),
        ("generated.py", "", 1),
        ("gone.py", "", 3),
        ("kept.py", "", 2),
        ("new.py", "old.py", 4),
    ]


def test_the_servers_error_is_one_line(run, conductor):
    info = ErrorInfo(reason="TENANT_MISMATCH", domain="conductor")
    others = [(*command, *REPOSITORY) for command in (("predict",), ("prioritize",), ("flaky",), ("classify", "t"))]
    for command in (SELECT, *others):
        conductor.refusals = [Refusal(grpc.StatusCode.PERMISSION_DENIED, "not yours", (info,))]
        result = run(*command)
        assert result.exit_code == 1
        assert result.stderr == f"Error: {conductor.target}: PERMISSION_DENIED (TENANT_MISMATCH): not yours\n"
        assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("select", *REPOSITORY), "give one goal: --miss-rate or --time-share"),
        ((*SELECT, "--time-share", "0.5"), "give one goal: --miss-rate or --time-share"),
        ((*SELECT, "--base", "main", "--diff", "-"), "give one of --diff, --base and --changed"),
        ((*SELECT, "--changed", "a", "--diff", "-"), "give one of --diff, --base and --changed"),
        ((*SELECT, "--tests", "-", "--diff", "-"), "standard input can't be both --tests and --diff"),
        (("predict",), "give --repository"),
    ],
)
def test_wrong_usage_ends_with_2(run, conductor, arguments: Any, words):
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (2, f"Error: {words}\n")
    assert not conductor.requests


def test_what_can_not_be_read_ends_with_1(run, conductor, tmp_path, checkout):
    (tmp_path / "none").write_text("\n")
    for arguments in (
        (*SELECT, "--tests", str(tmp_path / "nowhere")),
        (*SELECT, "--tests", str(tmp_path / "none")),
        (*SELECT, "--base", "no-such-branch", "--path", str(checkout.path)),
        (*SELECT, "--base", "--output=/etc", "--path", str(checkout.path)),
        (*SELECT, "--base", "main", "--path", str(tmp_path)),
    ):
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert len(result.stderr.splitlines()) == 1
    assert not conductor.requests


@pytest.mark.parametrize("command", ["select", "predict", "prioritize", "flaky", "classify"])
def test_help_has_examples(run, command):
    told = run(command, "--help").stdout
    assert "Examples:" in told
    assert f"conductor tests {command}" in told
