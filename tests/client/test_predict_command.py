"""`conductor predict build-duration`, typed as a person would."""

import json

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from typer.testing import CliRunner

from client.conftest import Refusal
from conductor_client.cli import predict_commands

OPTIONS = ["--repository", "octocat/hello", "--pipeline", "ci"]


@pytest.fixture
def run(conductor, monkeypatch):
    monkeypatch.setenv("CONDUCTOR_TARGET", conductor.target)
    monkeypatch.setenv("CONDUCTOR_TENANT", "acme")
    return lambda *more: CliRunner().invoke(predict_commands, ["build-duration", *OPTIONS, "--insecure", *more])


def test_the_answer_in_words(run):
    result = run()
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "About 5 min 20 s (90 %: 4 min 50 s – 6 min 40 s) — "
        "model build-duration/acme 0123456789abcdef, features 12 s old\n"
        "         +35 s  branch_builds_v1.last_duration = 310\n"
        "          -4 s  tenant_load_v1.queued missing\n"
    )


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (2, "model build-duration/acme 0123456789abcdef without some of its features, features 12 s old"),
        (3, "no model: from this pipeline's history"),
        (4, "no model and no history: typical of all builds"),
        (9, "by a method that this client doesn't know"),
    ],
)
def test_fallbacks_do_not_pass_as_fresh(run, conductor, method, words):
    conductor.response.provenance.method = method
    conductor.response.provenance.missing_features.append("branch_builds_v1.median")
    result = run()
    assert words in result.stdout
    assert "missing or too old: branch_builds_v1.median" in result.stdout


def test_no_claim_is_said(run, conductor):
    conductor.response.interval.coverage = 0
    assert "(no claim: 4 min 50 s – 6 min 40 s)" in run().stdout


def test_json(run):
    answer = json.loads(run("-o", "json").stdout)
    assert (answer["median"], answer["lower"], answer["upper"], answer["method"]) == (320, 290, 400, "model")
    assert answer["prediction_time"] == "2023-11-14T22:13:20+00:00"
    assert answer["contributions"][1] == {"feature": "tenant_load_v1.queued", "value": None, "effect": -4}


def test_everything_that_is_told_is_sent(run, conductor, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    more = ["--branch", "main", "--trigger", "push", "--actor", "me", "--commit", "abc", "--contributions", "3"]
    assert run(*more, "--token-file", str(token)).exit_code == 0
    [request] = conductor.requests
    build = request.build
    assert (request.tenant_id, build.repository, build.pipeline) == ("acme", "octocat/hello", "ci")
    assert (build.branch, build.trigger, build.actor, build.commit_sha) == ("main", 1, "me", "abc")
    assert request.contribution_count == 3
    assert conductor.metadata[0]["authorization"] == "Bearer secret"


def test_the_servers_error_is_one_line(run, conductor):
    info = ErrorInfo(reason="TENANT_MISMATCH", domain="conductor")
    conductor.refusals = [Refusal(grpc.StatusCode.PERMISSION_DENIED, "not yours", (info,))]
    result = run()
    assert result.exit_code == 1
    assert result.stderr == f"Error: {conductor.target}: PERMISSION_DENIED (TENANT_MISMATCH): not yours\n"
    assert not result.stdout


def test_wrong_usage_ends_with_2(run):
    assert run("--trigger", "cosmic-ray").exit_code == 2
    assert run("--contributions", "99").exit_code == 2
    assert CliRunner().invoke(predict_commands, ["build-duration", "--insecure"]).exit_code == 2
