"""Rules of what is known about a build: events and prediction requests carry it alike."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from conductor.build.v1.build_context_pb2 import BuildContext, ChangeSet, RepositoryState
from conductor_rpc.rules.engine import Many, Moment, Nested, Table, Text, Together, counts

TABLES: Mapping[type[Message], Table] = {
    ChangeSet: {**counts(ChangeSet), "file_extensions": Many(64, Text(64))},
    RepositoryState: {
        **counts(RepositoryState, "test_lines_per_thousand"),
        "language": Text(64),
        "build_tool": Text(64),
    },
    BuildContext: {
        "repository": Text(256, required=True),
        "pipeline": Text(256, required=True),
        "branch": Text(256),
        "actor": Text(256),
        "commit_sha": Text(64),
        "queued_time": Moment(),
        "change": Nested(),
        "repository_state": Nested(),
    },
}
TOGETHER: Mapping[type[Message], Together] = {}
