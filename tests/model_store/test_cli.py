"""`conductor models`."""

import json

import pytest
from typer.testing import CliRunner

from conductor_model_store.cli import commands


@pytest.fixture
def run(root, monkeypatch):
    monkeypatch.setenv("CONDUCTOR_MODEL_STORE", str(root))
    return lambda *arguments: CliRunner().invoke(commands, list(arguments))


def test_list_shows_what_is_in_use(run, store, make_model):
    assert "No model" in run("list").stderr
    published = store.publish(*make_model(1, tenant_id="acme"))
    table = run("list")
    assert table.exit_code == 0
    assert "models/build-duration/tenants/acme" in table.stdout
    assert published.version in table.stdout
    [row] = json.loads(run("list", "-o", "json").stdout)
    assert (row["version"], row["generation"], row["by"]) == (published.version, 1, "publish")
    assert json.loads(run("list", "--tenant", "", "-o", "json").stdout) == []
    store.publish(*make_model(2, tenant_id="acme"))
    rows = json.loads(run("list", "build-duration", "--versions", "-o", "json").stdout)
    assert [row["champion"] for row in rows] == [True, False]


def test_show_tells_the_candidates(run, store, make_model):
    published = store.publish(*make_model(1))
    shown = json.loads(run("show", "build-duration", "-o", "json").stdout)
    assert (shown["version"], shown["in_use"]) == (published.version, True)
    assert [row["candidate"] for row in shown["candidates"]] == ["median7", "last"]
    text = run("show", "build-duration", published.version)
    assert text.exit_code == 0
    assert "median7" in text.stdout
    missing = run("show", "build-duration", "--tenant", "nobody")
    assert (missing.exit_code, "nobody" in missing.stderr) == (1, True)
    assert run("show", "build-duration", "0" * 16).exit_code == 1


def test_rollback_and_promote(run, store, make_model):
    first, second = store.publish(*make_model(1)), store.publish(*make_model(2))
    back = json.loads(run("rollback", "build-duration", "-o", "json").stdout)
    assert (back["version"], back["generation"]) == (first.version, 3)
    assert run("rollback", "build-duration").exit_code == 1
    assert second.version in run("promote", "build-duration", second.version).stdout
    assert store.resolve("build-duration").version == second.version
    wrong = run("promote", "build-duration", "nonsense")
    assert (wrong.exit_code, "nonsense" in wrong.stderr) == (1, True)


def test_verify_finds_damage(run, store, root, make_model):
    store.publish(*make_model(1))
    assert run("verify").exit_code == 0
    [blob] = root.glob("blobs/sha256/*")
    blob.write_bytes(b"?" * blob.stat().st_size)
    found = run("verify", "-o", "json")
    assert found.exit_code == 1
    assert all(blob.name in row["problem"] for row in json.loads(found.stdout))
    (root / "models/build-duration/global/channels/champion/00000000000000000002.json").write_text("{")
    assert "00000000000000000002.json" in run("verify").stdout


def test_the_option_goes_before_the_environment_and_that_before_the_file(
    root, tmp_path, monkeypatch, store, make_model
):
    store.publish(*make_model(1))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conductor.toml").write_text(f'model_store = "{root}"\nother = 1\n')
    runner = CliRunner()
    assert len(json.loads(runner.invoke(commands, ["list", "-o", "json"]).stdout)) == 1
    monkeypatch.setenv("CONDUCTOR_MODEL_STORE", str(tmp_path / "empty"))
    assert json.loads(runner.invoke(commands, ["list", "-o", "json"]).stdout) == []
    assert len(json.loads(runner.invoke(commands, ["list", "--store", str(root), "-o", "json"]).stdout)) == 1


def test_a_key_pair_signs_and_verify_tells_by_whom(run, store, root, make_model, tmp_path, monkeypatch):
    made = run("keygen", "--out", str(tmp_path / "keys"), "-o", "json")
    pair = json.loads(made.stdout)
    again = run("keygen", "--out", str(tmp_path / "keys"))
    assert (again.exit_code, "exists" in again.stderr) == (1, True)
    first, second = store.publish(*make_model(1)), store.publish(*make_model(2, tenant_id="acme"))

    # Nobody signed, and nobody asks for it.
    told = run("verify", "-o", "json")
    assert (told.exit_code, "not checked" in told.stderr) == (0, True)
    assert {row["signed_by"] for row in json.loads(told.stdout)} == {"unsigned"}

    monkeypatch.setenv("CONDUCTOR_MODEL_TRUSTED_KEYS", pair["public_key"])
    told = run("verify", "-o", "json")
    assert told.exit_code == 1
    assert sum("is not signed" in row["problem"] for row in json.loads(told.stdout)) == 4, "two versions, two pointers"
    refused = run("show", "build-duration")
    assert (refused.exit_code, "nothing on channel" in refused.stderr) == (1, True)
    refused = run("show", "build-duration", first.version)
    assert (refused.exit_code, "is not signed" in refused.stderr) == (1, True)
    assert "is not signed" in run("promote", "build-duration", first.version, "--channel", "challenger").stderr
    without_key = run("sign", "--all")
    assert (without_key.exit_code, "CONDUCTOR_MODEL_SIGNING_KEY" in without_key.stderr) == (1, True)

    monkeypatch.setenv("CONDUCTOR_MODEL_SIGNING_KEY", pair["private_key"])
    assert run("sign", "build-duration", first.version).exit_code == 0
    assert run("sign-channels", "build-duration").exit_code == 0
    assert run("show", "build-duration").exit_code == 0
    assert run("show", "build-duration", "--tenant", "acme").exit_code == 1
    signed = run("sign", "--all", "-o", "json")
    assert (signed.exit_code, {row["signed_by"] for row in json.loads(signed.stdout)}) == (0, {pair["key_id"][:16]})
    assert run("verify").exit_code == 1
    signed = run("sign-channels", "--all", "-o", "json")
    assert (signed.exit_code, {row["signed_by"] for row in json.loads(signed.stdout)}) == (0, {pair["key_id"][:16]})
    assert run("verify").exit_code == 0
    shown = json.loads(run("show", "build-duration", second.version, "--tenant", "acme", "-o", "json").stdout)
    assert shown["signed_by"] == pair["key_id"][:16]


def test_sign_all_goes_on_after_damage(run, store, root, make_model, tmp_path, monkeypatch):
    pair = json.loads(run("keygen", "--out", str(tmp_path), "--algorithm", "ecdsa-p256", "-o", "json").stdout)
    monkeypatch.setenv("CONDUCTOR_MODEL_SIGNING_KEY", pair["private_key"])
    bad, good = store.publish(*make_model(1)), store.publish(*make_model(2))
    (root / bad.scope.version_key(bad.version)).write_bytes(b"?")
    done = run("sign", "--all", "-o", "json")
    assert (done.exit_code, "1 of 2" in done.stderr) == (1, True)
    assert {row["model"].split()[1]: row["signed_by"] for row in json.loads(done.stdout)} == {
        bad.version: "unsigned",
        good.version: pair["key_id"][:16],
    }
    assert "(not checked)" in run("show", "build-duration").stdout


def test_usage_errors_end_with_2(run):
    assert run("sign").exit_code == run("sign", "build-duration").exit_code == 2
    assert run("sign", "build-duration", "0" * 16, "--all").exit_code == 2
    assert run("keygen", "--out", "x", "--algorithm", "rsa").exit_code == 2
    assert run("list", "-o", "xml").exit_code == 2
    assert run("promote").exit_code == 2


def test_a_canary_is_tried_and_withdrawn(run, store, make_model):
    first, second = store.publish(*make_model(1)), store.publish(*make_model(2))
    moved = run("promote", "build-duration", first.version, "--channel", "canary", "--weight", "0.1", "-o", "json")
    assert json.loads(moved.stdout)["generation"] == 1
    [row] = json.loads(run("list", "--channel", "canary", "-o", "json").stdout)
    assert (row["version"], row["weight"]) == (first.version, 0.1)
    assert run("promote", "build-duration", "canary").exit_code == 0
    assert store.resolve("build-duration").version == first.version
    assert run("withdraw", "build-duration", "canary", "--reason", "enough").exit_code == 0
    assert store.history("build-duration", channel="canary")[0].detail == "enough"
    assert json.loads(run("list", "--channel", "canary", "-o", "json").stdout) == []
    assert run("withdraw", "build-duration", "champion").exit_code == 1
    assert run("promote", "build-duration", second.version, "--weight", "0.1").exit_code == 1


def test_diff_tells_fields_columns_metrics_and_answers(run, store):
    """Of real graphs: the server's tests make them."""
    from server.harness import COLUMNS, graph, manifest, with_golden

    found = []
    for bias in (10.0, 20.0):
        content = graph(bias)
        made = with_golden(manifest(content), content)
        made.inputs[1].typical_value = bias
        made.candidates.add(candidate="linear", chosen=True, row_count=5, mae_seconds=bias, mape=0.1)
        found.append(store.publish(made, content).version)
    told = json.loads(run("diff", "build-duration", *found, "-o", "json").stdout)
    assert [told["a"], told["b"]] == found
    assert [row["field"] for row in told["fields"]] == ["graph.digest"]
    assert [row["column"] for row in told["columns"]] == [COLUMNS[1].name]
    assert {row["metric"]: (row["a"], row["b"]) for row in told["metrics"]}["mae_seconds"] == (10.0, 20.0)
    assert [round(row["b_seconds"] - row["a_seconds"], 3) for row in told["answers"]] == [10.0] * 4
    assert found[1] in run("diff", "build-duration", found[0], "champion").stdout
    assert run("diff", "build-duration", found[0], "canary").exit_code == 1


def test_show_tells_how_a_channel_moved(run, store, make_model):
    first, second = store.publish(*make_model(1)), store.publish(*make_model(2))
    run("rollback", "build-duration", "--reason", "worse on Mondays")
    moves = json.loads(run("show", "build-duration", "-o", "json").stdout)["history"]
    assert [(move["generation"], move["how"], move["from"], move["to"], move["why"]) for move in moves] == [
        (3, "rollback", second.version, first.version, "worse on Mondays"),
        (2, "publish", first.version, second.version, ""),
        (1, "publish", "(nothing)", first.version, ""),
    ]
    assert moves[0]["by"]
    assert {move["signed_by"] for move in moves} == {"unsigned"}
    assert "worse on Mondays" in run("show", "build-duration").stdout
    run("promote", "build-duration", second.version, "--channel", "canary", "--weight", "0.1")
    run("withdraw", "build-duration", "canary", "--reason", "enough")
    run("rollback", "build-duration", "--channel", "canary")
    moves = json.loads(run("show", "build-duration", "--channel", "canary", "-o", "json").stdout)["history"]
    assert [(move["from"], move["to"], move["weight"]) for move in moves] == [
        ("(nothing)", second.version, 0.1),
        (second.version, "(nothing)", 0.0),
        ("(nothing)", second.version, 0.1),
    ]


def test_a_chain_begins_anew_only_with_a_key(run, store, make_model, tmp_path, monkeypatch):
    pair = json.loads(run("keygen", "--out", str(tmp_path), "-o", "json").stdout)
    published = store.publish(*make_model(1))
    monkeypatch.setenv("CONDUCTOR_MODEL_TRUSTED_OPERATOR_KEYS", pair["public_key"])
    assert run("sign-channels").exit_code == 2
    without_key = run("sign-channels", "--all")
    assert (without_key.exit_code, "CONDUCTOR_MODEL_OPERATOR_KEY" in without_key.stderr) == (1, True)
    monkeypatch.setenv("CONDUCTOR_MODEL_OPERATOR_KEY", pair["private_key"])
    assert run("sign-channels", "--all").exit_code == 0
    begun = run("restart-channel", "build-duration", "--above", "17", "--reason", "restored", "-o", "json")
    assert json.loads(begun.stdout)["generation"] == 18
    assert store.history("build-duration")[0].predecessor == ""
    monkeypatch.delenv("CONDUCTOR_MODEL_OPERATOR_KEY")
    refused = run("promote", "build-duration", published.version, "--channel", "canary")
    assert (refused.exit_code, "a key that is trusted to" in refused.stderr) == (1, True)


def test_a_file_of_an_impossible_number_is_told(run, store, root, make_model):
    version = store.publish(*make_model(1))
    (root / version.scope.channel_directory("champion") / ("9" * 20 + ".json")).write_text("?")
    other = store.publish(*make_model(2), "shadow").version
    told = run("promote", "build-duration", other)
    assert (told.exit_code, "impossible number" in told.stderr) == (1, True)


def test_moves_are_noted_before_and_after(run, store, make_model, tmp_path, monkeypatch):
    first, _ = store.publish(*make_model(1)), store.publish(*make_model(2))
    audit = tmp_path / "audit.ndjson"
    monkeypatch.setenv("CONDUCTOR_AUDIT_FILE", str(audit))
    assert run("promote", "build-duration", first.version).exit_code == 0
    assert run("promote", "build-duration", "f" * 16).exit_code == 1
    noted = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["method"], line["phase"], line.get("code")) for line in noted] == [
        ("models promote", "begun", None),
        ("models promote", "ended", "OK"),
        ("models promote", "begun", None),
        ("models promote", "ended", "FAILED"),
    ]
    assert noted[0]["resource"]["version"] == first.version
    monkeypatch.setenv("CONDUCTOR_AUDIT_FILE", str(tmp_path))  # a folder: nothing can be noted
    moved = run("rollback", "build-duration")
    assert moved.exit_code == 1 and "audit" in moved.stderr
    assert store.resolve("build-duration").version == first.version
