"""Indexes a checkout: reads what is new, links everything, puts the snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from psycopg import Connection

from conductor_features.changes.paths import language_of
from conductor_warehouse.code_graph import store
from conductor_warehouse.code_graph.checkout import Checkout, SourceFile
from conductor_warehouse.code_graph.facts import FACTS_VERSION, FileFacts
from conductor_warehouse.code_graph.languages import READERS
from conductor_warehouse.code_graph.linking import Linked, link
from conductor_warehouse.code_graph.parsing import parse_all
from conductor_warehouse.code_graph.store import Snapshot

_BYTES_TOGETHER = 64 << 20
"""So much code is in memory at a time."""
_REMEMBERED_TOGETHER = 500


@dataclass(frozen=True)
class Progress:
    """How far it is."""

    step: str
    done: int
    of: int


@dataclass(frozen=True)
class Indexed:
    """What became of it."""

    snapshot: Snapshot
    parsed_count: int
    """Files that were parsed; the others were known."""
    unchanged: bool
    """The same snapshot was there: nothing was written."""


def index(
    connection: Connection[Any],
    tenant_id: str,
    repository: str,
    checkout: Checkout,
    *,
    commit: str | None = None,
    test_id_prefix: str = "",
    processes: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Indexed:
    """Index a checkout. May be killed at any moment and done again; until the end the last snapshot is there.

    Raises CheckoutError, psycopg.Error.
    """
    commit = commit if commit is not None else checkout.commit()
    files, build_files, facts, parsed = _read(connection, tenant_id, checkout, processes, progress)
    contents = _digest(files, build_files, test_id_prefix)
    last = store.find(connection, tenant_id, repository, commit)
    if last is not None and last.contents_digest == contents:
        latest = store.find(connection, tenant_id, repository)
        if latest is not None and latest.snapshot_id == last.snapshot_id:
            return Indexed(last, parsed, unchanged=True)
    progress(Progress("linking", 0, 1))
    read = {path: one for path, one in facts.items() if not one.problem}
    linked = link(read, build_files, commit=commit, test_id_prefix=test_id_prefix)
    skipped = {path: one.skipped or facts[path].problem for path, one in files.items() if path not in read}
    counts = _counts(read, skipped, linked)
    progress(Progress("writing", 0, 1))
    rows = _rows(files, facts, skipped, linked)
    return Indexed(store.put(connection, tenant_id, repository, contents, linked.graph, counts, rows), parsed, False)


def _read(
    connection: Connection[Any],
    tenant_id: str,
    checkout: Checkout,
    processes: int | None,
    progress: Callable[[Progress], None],
) -> tuple[dict[str, SourceFile], dict[str, bytes], dict[str, FileFacts], int]:
    """The files without their contents, the build files' contents, the facts, and how many files were parsed."""
    files: dict[str, SourceFile] = {}
    build_files: dict[str, bytes] = {}
    facts: dict[str, FileFacts] = {}
    parsed = 0
    paths = checkout.files()
    for part in _parts(checkout, paths):
        code = []
        for one in part:
            if language_of(one.path) in READERS:
                files[one.path] = SourceFile(one.path, digest=one.digest, skipped=one.skipped)
                code += [one] if not one.skipped else []
            elif not one.skipped:
                build_files[one.path] = one.data
        known = store.known_facts(connection, tenant_id, [one.digest for one in code])
        facts |= {one.path: known[one.digest] for one in code if one.digest in known}
        new = {one.digest: one for one in code if one.digest not in known}
        digests = {one.path: digest for digest, one in new.items()}
        fresh: dict[bytes, FileFacts] = {}
        for path, found in parse_all([(one.path, one.data) for one in new.values()], processes) if new else ():
            fresh[digests[path]] = known[digests[path]] = found
            parsed += 1
            progress(Progress("reading", len(facts) + len(fresh), len(paths)))
            if len(fresh) % _REMEMBERED_TOGETHER == 0:
                store.remember_facts(connection, tenant_id, fresh)
        store.remember_facts(connection, tenant_id, fresh)
        facts |= {one.path: known[one.digest] for one in code}
    return files, build_files, facts, parsed


def _parts(checkout: Checkout, paths: Sequence[str]) -> Iterator[list[SourceFile]]:
    part: list[SourceFile] = []
    size = 0
    for path in paths:
        part.append(checkout.read(path))
        size += len(part[-1].data)
        if size > _BYTES_TOGETHER:
            yield part
            part, size = [], 0
    yield part


def _digest(files: Mapping[str, SourceFile], build_files: Mapping[str, bytes], test_id_prefix: str) -> bytes:
    digest = blake2b(f"{FACTS_VERSION} {len(test_id_prefix)} {test_id_prefix}".encode(), digest_size=16)
    for path, one in sorted(files.items()):
        digest.update(f"{len(path)} {path} {one.digest.hex()} {one.skipped}\n".encode())
    for path, data in sorted(build_files.items()):
        digest.update(f"{len(path)} {path} {blake2b(data).hexdigest()}\n".encode())
    return digest.digest()


def _counts(read: Mapping[str, FileFacts], skipped: Mapping[str, str], linked: Linked) -> dict[str, Any]:
    graph = linked.graph
    return {
        "files": len(read),
        "languages": dict(Counter(language_of(path) for path in read).most_common()),
        "skipped": dict(Counter(skipped.values()).most_common()),
        "syntax_errors": sum(one.syntax_errors for one in read.values()),
        "definitions": sum(len(one.definitions) for one in read.values()),
        "imports_within": sum(one.target_path is not None for one in linked.imports),
        "imports_elsewhere": sum(not one.is_local for one in linked.imports),
        "imports_unresolved": sum(one.is_local and one.target_path is None for one in linked.imports),
        "test_files": int(graph.is_test.sum()),
        "tests": sum(len(read[path].tests) for path, test in zip(graph.paths, graph.is_test, strict=True) if test),
        "edges": len(graph.importers.targets) + len(graph.within.targets) + len(graph.across.targets),
    }


def _rows(
    files: Mapping[str, SourceFile], facts: Mapping[str, FileFacts], skipped: Mapping[str, str], linked: Linked
) -> dict[str, list[tuple[Any, ...]]]:
    tests = dict(zip(linked.graph.paths, linked.graph.is_test.tolist(), strict=True))
    nothing = FileFacts()
    return {
        "code_files": [
            (
                path,
                language_of(path),
                one.digest or None,
                tests.get(path, False),
                len(facts.get(path, nothing).tests) if tests.get(path) else 0,
                facts.get(path, nothing).syntax_errors,
                skipped.get(path, ""),
            )
            for path, one in files.items()
        ],
        "code_definitions": [
            (path, number, one.name, one.kind, one.first_line, one.last_line)
            for path in tests
            for number, one in enumerate(facts[path].definitions)
        ],
        "code_imports": [
            (one.path, number, one.specifier, one.target_path, one.is_local)
            for number, one in enumerate(linked.imports)
        ],
    }
