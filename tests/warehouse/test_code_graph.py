"""From a checkout to a snapshot, to the commands and the online store: whole, once, and for one tenant only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from typer.testing import CliRunner

import ending
from changes.git_repository import GitRepository
from changes.graphs import by_name
from conductor_features.changes.diff import parse_diff
from conductor_features.changes.graph_cache import ImpactGraphs
from conductor_features.changes.impact_graph import ImpactGraph, impact_of
from conductor_features.reader import OnlineReader
from conductor_features.rows import ABSENT, LOADING, Missing
from conductor_warehouse.cli.repo import repo_commands
from conductor_warehouse.code_graph import indexing, parsing, store
from conductor_warehouse.code_graph.carrying import carry_graphs
from conductor_warehouse.code_graph.checkout import Checkout
from conductor_warehouse.code_graph.facts import FileFacts
from conductor_warehouse.code_graph.languages import read_facts
from conductor_warehouse.tailing_writer import TailingWriter

FILES = {
    "shop/__init__.py": "",
    "shop/tax.py": "def rate():\n    return 1\n\n\ndef free():\n    return 0\n",
    "shop/total.py": "from .tax import rate\n\n\ndef total():\n    return rate()\n",
    "tests/test_total.py": "from shop.total import total\n\n\ndef test_total():\n    assert total()\n",
    "tests/test_free.py": "from shop import gone, tax\n\n\ndef test_free():\n    assert not tax.free()\n",
    "web/a.ts": "export const a = 1;\n",
    "web/a.test.ts": "import { a } from './a';\nimport './nowhere';\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    repository = GitRepository(tmp_path / "shop")
    repository.commit(FILES)
    return repository


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Parses in this process, which is quicker; tells which files."""
    parsed: list[str] = []

    def parse_all(files: list[tuple[str, bytes]], processes: int | None = None) -> Iterator[tuple[str, FileFacts]]:
        for path, data in files:
            parsed.append(path)
            yield path, read_facts(path, data)

    monkeypatch.setattr(indexing, "parse_all", parse_all)
    yield parsed


def _run(url: str, *arguments: str, code: int = 0, stdin: bytes = b"") -> Any:
    told = CliRunner().invoke(
        repo_commands, [*arguments, "-t", "acme"], env={"CONDUCTOR_DATABASE_URL": url}, input=stdin
    )
    assert told.exit_code == code, told.output
    return json.loads(told.stdout) if "json" in arguments else told.output


def test_the_commands(repository: GitRepository, warehouse_url: str, here: list[str]) -> None:
    told = _run(warehouse_url, "index", str(repository.path), "-o", "json")
    assert (told["repository"], told["files"], told["parsed"], told["test_files"]) == ("shop", 7, 7, 3)
    assert (told["imports_within"], told["imports_unresolved"]) == (5, 1)
    show = _run(warehouse_url, "show", "shop", "-o", "json")
    assert show["unresolved"] == [{"import": "./nowhere", "files": 1}]
    assert show["languages"] == {"python": 5, "typescript": 2}
    assert "python 5" in _run(warehouse_url, "show", "shop")

    repository.write({"shop/tax.py": FILES["shop/tax.py"].replace("return 1", "return 2"), "README.md": "x"})
    data = repository.git("diff")
    for arguments, stdin in ((("--base", "main", "--path", str(repository.path)), b""), (("-", "-r", "shop"), data)):
        impact = _run(warehouse_url, "impact", *arguments, "-o", "json", stdin=stdin)
        assert impact["changed_definitions"] == ["shop/tax.py:rate"]
        assert [(one["test"], one["reached"], one["distance"]) for one in impact["tests"]] == [
            ("tests/test_total.py", "by name", 2),
            ("tests/test_free.py", "by import", 1),
        ]
        assert impact["tests"][0]["way"][0] == "shop/tax.py:rate"
    assert "shop/tax.py:rate" in _run(warehouse_url, "impact", "-", "-r", "shop", stdin=data)

    assert "not indexed" in _run(warehouse_url, "show", "other", code=1)
    assert "give a diff" in _run(warehouse_url, "impact", code=2)
    assert "neither" in _run(warehouse_url, "impact", "-", "-r", "shop", code=1, stdin=b"hello")
    assert "no commit" in _run(warehouse_url, "impact", "--base=--output=x", "--path", str(repository.path), code=1)


def test_only_what_changed_is_parsed_and_nothing_is_written_twice(
    repository: GitRepository, warehouse: psycopg.Connection, here: list[str]
) -> None:
    def run(**options: Any) -> indexing.Indexed:
        here.clear()
        return indexing.index(warehouse, "acme", "shop", Checkout(repository.path), **options)

    first = run()
    assert len(here) == 7
    again = run()
    assert (again.unchanged, again.snapshot.snapshot_id, here) == (True, first.snapshot.snapshot_id, [])
    commit = repository.commit({"shop/tax.py": "def rate():\n    return 3\n", "tests/test_free.py": None})
    second = run()
    assert (second.unchanged, second.snapshot.commit, here) == (False, commit, ["shop/tax.py"])
    assert store.find(warehouse, "acme", "shop") == second.snapshot
    assert store.find(warehouse, "acme", "shop", first.snapshot.commit) == first.snapshot
    assert run(commit="release", test_id_prefix="unit:").snapshot.commit == "release"
    assert here == []
    # Another tenant has none of it, neither snapshots nor what was read.
    assert store.find(warehouse, "globex", "shop") is None
    indexing.index(warehouse, "globex", "shop", Checkout(repository.path))
    assert len(here) == 6
    for number in range(store.KEPT_SNAPSHOTS):
        run(commit=f"c{number}")
    assert store.find(warehouse, "acme", "shop", first.snapshot.commit) is None
    files = warehouse.execute("SELECT count(DISTINCT snapshot_id) FROM code_files WHERE tenant_id = 'acme'").fetchone()
    assert files == (store.KEPT_SNAPSHOTS,)


def test_garbage_is_skipped_with_its_reason(
    repository: GitRepository, warehouse: psycopg.Connection, here: list[str]
) -> None:
    repository.write(
        {
            "binary.py": b"\0\1\2",
            "latin.py": b"# caf\xe9\ndef f(): return '\xff'\n",
            "broken.py": "def (:\n  ]]]\n" * 20,
            "big.py": b"x = 1\n" * 200_000,
            "bundle.js": "a=1;" * 30_000,
            "vendor/lib.go": "package lib\n",
            "go.mod": b"\xff\xfe module",
            "package.json": "[1, 2",
            "empty.java": "",
            "crlf.py": "import os\r\n\r\ndef f():\r\n    pass\r\n",
        }
    )
    (repository.path / "loop").symlink_to(".")
    (repository.path / "linked.py").symlink_to("/etc/passwd")
    (repository.path / "missing.py").symlink_to("nowhere.py")
    (repository.path / "sub").mkdir()
    os.mkfifo(repository.path / "pipe.py")
    name = os.fsencode(repository.path) + b"/caf\xe9.py"
    os.close(os.open(name, os.O_CREAT))
    result = indexing.index(warehouse, "acme", "shop", Checkout(repository.path))
    rows = warehouse.execute("SELECT path, skipped FROM code_files WHERE skipped <> ''").fetchall()
    skipped = dict(rows)
    assert skipped.pop("caf\N{REPLACEMENT CHARACTER}.py") == "no such file or directory"
    assert skipped.pop("pipe.py", "not a file") == "not a file"  # git does not list it
    assert skipped == {
        "binary.py": "binary",
        "big.py": "larger than 1024 KiB",
        "bundle.js": "lines as of a bundle",
        "vendor/lib.go": "somebody else's code",
        "linked.py": "a symbolic link",
        "missing.py": "a symbolic link",
    }
    assert result.snapshot.counts["syntax_errors"] == 1
    assert sum(result.snapshot.counts["skipped"].values()) == len(rows)
    plain = {path: read_facts(path, (repository.path / path).read_bytes()) for path in ("latin.py", "crlf.py")}
    assert [one.units[0].name for one in plain.values()] == ["f", "f"]
    assert plain["crlf.py"].units[0].first_line == 3


def test_a_folder_without_git_is_indexed_too(tmp_path: Path, warehouse: psycopg.Connection, here: list[str]) -> None:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "shop" / "again").symlink_to(tmp_path)
    result = indexing.index(warehouse, "acme", "shop", Checkout(tmp_path))
    assert (result.snapshot.counts["files"], result.snapshot.commit) == (len(FILES), "")


def test_a_repositorys_own_settings_run_nothing(
    repository: GitRepository, warehouse: psycopg.Connection, here: list[str]
) -> None:
    mark = repository.path.parent / "mark"
    for setting in ("core.fsmonitor", "diff.external", "diff.x.textconv"):
        repository.git("config", setting, f"touch {mark}; true")
    repository.write({".gitattributes": "*.py diff=x\n", "shop/tax.py": "x = 1\n"})
    indexing.index(warehouse, "acme", "shop", checkout := Checkout(repository.path))
    assert checkout.diff("main")
    assert not mark.exists()


def test_a_file_that_stops_the_parser_stops_only_itself() -> None:
    files = [("a.py", b"x = 1\n"), ("deep.py", b"(" * 200_000), ("b.py", b"y = 1\n")]
    found = dict(parsing.parse_all(files, 1, most_seconds=0.3))
    assert found["deep.py"].problem == "it makes the parser crash or hang"
    assert [found[path].units[0].name for path in ("a.py", "b.py")] == ["x", "y"]


_KILLED = """
import sys, time
from pathlib import Path
import psycopg
from conductor_warehouse.code_graph import indexing, store
from conductor_warehouse.code_graph.checkout import Checkout
from conductor_warehouse.code_graph.languages import read_facts
from conductor_warehouse.tailing_writer import TailingWriter
indexing.parse_all = lambda files, processes: ((path, read_facts(path, data)) for path, data in files)
forget = store._forget_old
def stop(*arguments):
    forget(*arguments)
    print("written", flush=True)
    time.sleep(600)
store._forget_old = stop
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    indexing.index(connection, "acme", "shop", Checkout(Path(sys.argv[2])))
"""


def test_killed_before_the_end_the_last_snapshot_is_there(
    repository: GitRepository, warehouse_url: str, warehouse: psycopg.Connection, here: list[str]
) -> None:
    before = indexing.index(warehouse, "acme", "shop", Checkout(repository.path)).snapshot
    repository.write({"shop/tax.py": "def rate():\n    return 3\n"})
    command = [sys.executable, "-c", _KILLED, warehouse_url, str(repository.path)]
    with ending.process(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert store.find(warehouse, "acme", "shop") == before
    assert before.contents_digest
    here.clear()
    deadline = time.monotonic() + 60  # the database notices in its own time
    after = indexing.index(warehouse, "acme", "shop", Checkout(repository.path))
    assert time.monotonic() < deadline
    assert (after.unchanged, after.snapshot.commit, here) == (False, before.commit, [])  # what was read was kept


async def test_graphs_reach_the_online_store_and_those_who_answer(
    repository: GitRepository, warehouse_url: str, warehouse: psycopg.Connection, redis_url: str, here: list[str]
) -> None:
    client = redis.Redis.from_url(redis_url)
    assert carry_graphs(warehouse, client) == 0
    first = indexing.index(warehouse, "acme", "shop", Checkout(repository.path)).snapshot
    indexing.index(warehouse, "globex", "shop", Checkout(repository.path))
    assert [carry_graphs(warehouse, client) for _ in range(2)] == [2, 0]
    repository.write({"shop/tax.py": FILES["shop/tax.py"].replace("return 1", "return 2")})
    files = parse_diff(repository.git("diff"))
    async with OnlineReader(redis_url, 2.0) as reader:
        graphs = ImpactGraphs(reader, reader)

        async def get() -> ImpactGraph | Missing:
            found = await graphs.get("acme", "shop")
            await graphs.settle()
            return found

        assert await graphs.get("acme", "unknown") is ABSENT
        assert await get() is LOADING
        graph = await get()
        assert isinstance(graph, ImpactGraph) and graph.commit == first.commit
        assert by_name(impact_of(graph, files)) == {"tests/test_total.py": 2}
        second = repository.commit()
        indexing.index(warehouse, "acme", "shop", Checkout(repository.path))
        await asyncio.to_thread(TailingWriter(warehouse_url, redis_url).catch_up)
        assert carry_graphs(warehouse, client) == 0
        assert await get() is graph  # while the next is loaded
        assert (later := await get()) is not graph and isinstance(later, ImpactGraph) and later.commit == second
        client.flushall()
        assert await get() is ABSENT
        assert carry_graphs(warehouse, client) == 2
        assert await get() is LOADING
        [place] = [key for key in client.scan_iter(b"cf1:4:acme*") if client.strlen(key) > 32]
        client.set(place, client.get(place)[:-1])
        await graphs.close()
        graphs = ImpactGraphs(reader, reader)
        assert await get() is LOADING
        assert isinstance(damaged := await get(), Missing) and damaged.corrupt
