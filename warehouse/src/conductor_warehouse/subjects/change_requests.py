"""What ``change_request.merged`` does to ``change_requests``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from conductor.events.v1.change_request_pb2 import ChangeRequestMerged
from conductor_warehouse.events import CHANGE_REQUEST_MERGED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import BYTES, INTEGER, TEXT, TIME
from conductor_warehouse.subjects.upsert import latest, upsert

EVENT_TYPES = (CHANGE_REQUEST_MERGED,)

_KEYS = {"tenant_id": TEXT, "repository": TEXT, "change_request_id": TEXT}
_COLUMNS = {
    "target_branch": TEXT,
    "author": TEXT,
    "opened_time": TIME,
    "merged_time": TIME,
    "merge_commit_sha": TEXT,
    "change": BYTES,
    "commit_count": INTEGER,
    "review_count": INTEGER,
    "comment_count": INTEGER,
}


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store change requests. They touch no features."""
    merged = latest(events, lambda event: (event.tenant_id, event.data.repository, event.data.change_request_id))
    rows = [(event, (*key, *_row(event.data))) for key, event in merged.items()]
    upsert(connection, "change_requests", _KEYS, _COLUMNS, rows)
    return {}


def _row(data: ChangeRequestMerged) -> tuple[Any, ...]:
    return (
        data.target_branch,
        data.author,
        to_datetime(data.opened_time) if data.HasField("opened_time") else None,
        to_datetime(data.merged_time),
        data.merge_commit_sha,
        data.change.SerializeToString(deterministic=True),
        data.commit_count if data.HasField("commit_count") else None,
        data.review_count if data.HasField("review_count") else None,
        data.comment_count if data.HasField("comment_count") else None,
    )
