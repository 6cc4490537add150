"""Events that could not be taken in: kept with the reason, shown, and tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_warehouse.events import Incoming, Rejected

_COLUMNS = "dead_letter_id, tenant_id, event_id, event_source, reason, form, payload, truncated, dead_letter_time"


@dataclass(frozen=True)
class DeadLetter:
    """An event that could not be taken in."""

    dead_letter_id: int
    tenant_id: str
    """As far as it could be read; empty otherwise."""
    event_id: str
    event_source: str
    reason: str
    form: str
    """``json`` or ``protobuf``."""
    payload: bytes
    truncated: bool
    """Whether only the beginning of the payload was kept; such a letter can't be tried again."""
    dead_letter_time: datetime

    @property
    def incoming(self) -> Incoming:
        """The event as it came."""
        return self.payload if self.form == "json" else CloudEvent.FromString(self.payload)

    @property
    def text(self) -> str:
        """The payload for people to read."""
        if self.form == "json" or self.truncated:
            return self.payload.decode(errors="replace")
        # Not as JSON, which must be able to read the data within.
        return str(CloudEvent.FromString(self.payload))


def store(connection: Connection[Any], rejected: Sequence[Rejected]) -> None:
    """Keep letters; one that is kept already, from an earlier attempt at the same events, gets the new reason."""
    letters = {(letter.tenant_id, letter.digest): letter for letter in rejected}
    if not letters:
        return
    rows = [
        (r.tenant_id, r.digest, r.event_id, r.source, r.reason, r.form, r.payload, r.truncated)
        for r in letters.values()
    ]
    connection.execute(
        """
        INSERT INTO dead_letters AS letter
          (tenant_id, digest, event_id, event_source, reason, form, payload, truncated)
        SELECT * FROM unnest(
          %s::text[], %s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::boolean[])
        ON CONFLICT (tenant_id, digest) DO UPDATE SET reason = excluded.reason WHERE letter.reason <> excluded.reason
        """,
        [list(column) for column in zip(*rows, strict=True)],
    )


def find(
    connection: Connection[Any],
    *,
    tenant_id: str | None = None,
    ids: Sequence[int] | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[DeadLetter]:
    """Letters by id, oldest first: of one tenant or all, those of ``ids`` or all, beyond the id ``after``."""
    statement = f"""
        SELECT {_COLUMNS} FROM dead_letters
        WHERE dead_letter_id > %(after)s
          AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
          AND (%(ids)s::bigint[] IS NULL OR dead_letter_id = ANY (%(ids)s))
        ORDER BY dead_letter_id LIMIT %(limit)s
    """  # noqa: S608 - made of constants
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        parameters = {
            "after": after,
            "tenant": tenant_id,
            "ids": list(ids) if ids is not None else None,
            "limit": limit,
        }
        return cursor.execute(statement.encode(), parameters).fetchall()


def delete(connection: Connection[Any], ids: Sequence[int]) -> None:
    """Forget letters."""
    connection.execute("DELETE FROM dead_letters WHERE dead_letter_id = ANY (%s)", (list(ids),))
