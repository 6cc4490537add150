"""Snapshots in the warehouse: one for each commit, replaced as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from psycopg import Connection, sql

from conductor_features.changes.graph_codec import decode_graph, encode_graph, graph_keys
from conductor_features.changes.impact_graph import ImpactGraph
from conductor_warehouse.code_graph.facts import FileFacts
from conductor_warehouse.roles import INGEST_ROLE, READER_ROLE, bind
from conductor_warehouse.staging import BYTES, INTEGER, TEXT, Schema, batch_of, stage

KEPT_SNAPSHOTS = 3
"""Of a repository, the latest."""
_TABLES: Mapping[str, Schema] = {
    "code_files": {
        "path": TEXT, "language": TEXT, "digest": BYTES, "is_test": pa.bool_(), "test_count": INTEGER,
        "syntax_errors": pa.bool_(), "skipped": TEXT,
    },
    "code_definitions": {
        "path": TEXT, "definition_number": INTEGER, "name": TEXT, "kind": TEXT, "first_line": INTEGER,
        "last_line": INTEGER,
    },
    "code_imports": {
        "path": TEXT, "import_number": INTEGER, "specifier": TEXT, "target_path": TEXT, "is_local": pa.bool_(),
    },
}  # fmt: skip
"""Columns of a snapshot's tables, after the tenant and the snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """What is known of one snapshot."""

    snapshot_id: int
    commit: str
    indexed_time: datetime
    contents_digest: bytes
    counts: Mapping[str, Any]


def known_facts(connection: Connection[Any], tenant_id: str, digests: Sequence[bytes]) -> dict[bytes, FileFacts]:
    """Facts of files that were read before, by digest."""
    with connection.transaction():
        bind(connection, READER_ROLE, tenant_id)
        rows = connection.execute(
            "SELECT digest, facts FROM code_facts WHERE tenant_id = %s AND digest = ANY (%s)",
            (tenant_id, list(set(digests))),
            binary=True,
        ).fetchall()
    return {digest: FileFacts.from_json(facts) for digest, facts in rows}


def remember_facts(connection: Connection[Any], tenant_id: str, facts: Mapping[bytes, FileFacts]) -> None:
    """Keep what was read, so that nobody reads it again; may be done for a snapshot that never comes."""
    if not facts:
        return
    with connection.transaction():
        bind(connection, INGEST_ROLE, tenant_id)
        batch = batch_of({"digest": BYTES, "facts": BYTES}, [(key, one.to_json()) for key, one in facts.items()])
        connection.execute(
            sql.SQL(
                "INSERT INTO code_facts (tenant_id, digest, facts) SELECT {}, digest, facts FROM {}"
                " ON CONFLICT DO NOTHING"
            ).format(tenant_id, stage(connection, "code_facts", batch))
        )


def put(
    connection: Connection[Any],
    tenant_id: str,
    repository: str,
    contents_digest: bytes,
    graph: ImpactGraph,
    counts: Mapping[str, Any],
    rows: Mapping[str, Sequence[tuple[Any, ...]]],
) -> Snapshot:
    """Write a snapshot in the place of the commit's last one, in one transaction; old ones of the repository go.

    Args:
        connection: in autocommit mode.
        tenant_id: whose it is.
        repository: what it is of.
        contents_digest: of all that was read.
        graph: says the commit too.
        counts: what `show` tells.
        rows: by table, see ``_TABLES``.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock(tenant_id, repository),))
        bind(connection, INGEST_ROLE, tenant_id)
        here = (tenant_id, repository)
        connection.execute(
            "DELETE FROM code_snapshots WHERE (tenant_id, repository, commit_sha) = (%s, %s, %s)",
            (*here, graph.commit),
        )
        row = connection.execute(
            "INSERT INTO code_snapshots (tenant_id, repository, commit_sha, contents_digest, counts, graph)"
            " VALUES (%s, %s, %s, %s, %s, '') RETURNING snapshot_id, indexed_time",
            (*here, graph.commit, contents_digest, json.dumps(dict(counts))),
        ).fetchone()
        assert row is not None  # noqa: S101 - it returns what was inserted
        snapshot_id, indexed_time = row
        connection.execute(
            "UPDATE code_snapshots SET graph = %s WHERE (tenant_id, snapshot_id) = (%s, %s)",
            (encode_graph(_key(*here), snapshot_id, graph), tenant_id, snapshot_id),
        )
        for table, columns in _TABLES.items():
            names = sql.SQL(", ").join(map(sql.Identifier, columns))
            connection.execute(
                sql.SQL("INSERT INTO {} (tenant_id, snapshot_id, {names}) SELECT {}, {}, {names} FROM {}").format(
                    sql.Identifier(table),
                    tenant_id,
                    snapshot_id,
                    stage(connection, table, batch_of(columns, rows[table])),
                    names=names,
                )
            )
        _forget_old(connection, tenant_id, repository)
    return Snapshot(snapshot_id, graph.commit, indexed_time, contents_digest, counts)


def _forget_old(connection: Connection[Any], tenant_id: str, repository: str) -> None:
    gone = connection.execute(
        "DELETE FROM code_snapshots WHERE tenant_id = %s AND snapshot_id IN (SELECT snapshot_id FROM code_snapshots"
        " WHERE (tenant_id, repository) = (%s, %s) ORDER BY indexed_time DESC, snapshot_id DESC OFFSET %s)",
        (tenant_id, tenant_id, repository, KEPT_SNAPSHOTS),
    )
    if gone.rowcount:
        # Those of the last day may be of a snapshot that is being made.
        connection.execute(
            "DELETE FROM code_facts AS old WHERE tenant_id = %s AND read_time < now() - interval '1 day' AND NOT EXISTS"
            " (SELECT FROM code_files AS file WHERE (file.tenant_id, file.digest) = (old.tenant_id, old.digest))",
            (tenant_id,),
        )


def find(connection: Connection[Any], tenant_id: str, repository: str, commit: str | None = None) -> Snapshot | None:
    """A commit's snapshot, or the latest."""
    with connection.transaction():
        bind(connection, READER_ROLE, tenant_id)
        row = connection.execute(
            "SELECT snapshot_id, commit_sha, indexed_time, contents_digest, counts FROM code_snapshots"
            " WHERE tenant_id = %(tenant)s AND repository = %(repository)s"
            " AND (%(commit)s::text IS NULL OR commit_sha = %(commit)s)"
            " ORDER BY indexed_time DESC, snapshot_id DESC LIMIT 1",
            {"tenant": tenant_id, "repository": repository, "commit": commit},
        ).fetchone()
    return None if row is None else Snapshot(*row)


def load_graph(connection: Connection[Any], tenant_id: str, repository: str, snapshot: Snapshot) -> ImpactGraph:
    """A snapshot's graph."""
    with connection.transaction():
        bind(connection, READER_ROLE, tenant_id)
        row = connection.execute(
            "SELECT graph FROM code_snapshots WHERE (tenant_id, snapshot_id) = (%s, %s)",
            (tenant_id, snapshot.snapshot_id),
            binary=True,
        ).fetchone()
    if row is None:
        raise LookupError(f"snapshot {snapshot.snapshot_id} has been replaced meanwhile")
    return decode_graph(_key(tenant_id, repository), bytes(row[0]))


def unresolved(connection: Connection[Any], tenant_id: str, snapshot: Snapshot, limit: int) -> list[tuple[str, int]]:
    """Imports that look local and lead nowhere, with how many files have them."""
    with connection.transaction():
        bind(connection, READER_ROLE, tenant_id)
        return connection.execute(
            "SELECT specifier, count(*) FROM code_imports WHERE (tenant_id, snapshot_id) = (%s, %s)"
            " AND is_local AND target_path IS NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s",
            (tenant_id, snapshot.snapshot_id, limit),
        ).fetchall()


def _key(tenant_id: str, repository: str) -> bytes:
    return graph_keys((tenant_id, repository), 0)[0]


def _lock(tenant_id: str, repository: str) -> int:
    told = hashlib.blake2b(f"code graph {tenant_id} {repository}".encode(), digest_size=8).digest()
    return int.from_bytes(told, signed=True)
