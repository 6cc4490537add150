"""Batches that were put aside as a whole: kept with the reason and every event, listed, released or discarded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
from psycopg import Connection, sql
from psycopg.rows import class_row

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_warehouse.data_quality.checks import Finding
from conductor_warehouse.data_quality.mode import Mode
from conductor_warehouse.events import Event, Rejected, parse
from conductor_warehouse.staging import BIG_INTEGER, BYTES, INTEGER, TEXT, batch_of, stage

if TYPE_CHECKING:
    from conductor_warehouse.ingestion import IngestResult

_EVENTS = {
    "tenant_id": TEXT,
    "parked_batch_id": BIG_INTEGER,
    "event_number": INTEGER,
    "event_type": TEXT,
    "event_source": TEXT,
    "event_id": TEXT,
    "reason": TEXT,
    "form": TEXT,
    "payload": BYTES,
    "digest": BYTES,
    "truncated": TEXT,
}
_COLUMNS = (
    "parked_batch_id, tenant_id, status, reason, findings, event_counts, event_count, first_event_time,"
    " last_event_time, parked_time, settled_time"
)
_SHOWN_FINDINGS = 3


class NotParked(LookupError):
    """There is no such batch, or it was released or discarded already."""


@dataclass(frozen=True)
class Parked:
    """One tenant's part of a batch, to be parked."""

    tenant_id: str
    events: Sequence[Event]
    rejected: Sequence[Rejected]
    findings: Sequence[Finding]

    @property
    def event_count(self) -> int:
        """Events, with those that could not be read."""
        return len(self.events) + len(self.rejected)

    @property
    def reason(self) -> str:
        """For people, in one line."""
        told = [
            f"{'.'.join(filter(None, (one.event_type, one.field))) or 'batch'}: {one.check}: {one.message}"
            for one in self.findings[:_SHOWN_FINDINGS]
        ]
        return "; ".join(told)


@dataclass(frozen=True)
class ParkedBatch:
    """A batch that was parked."""

    parked_batch_id: int
    tenant_id: str
    status: str
    """``parked``, ``released`` or ``discarded``."""
    reason: str
    findings: list[dict[str, Any]]
    event_counts: dict[str, int]
    """By type; those that could not be read by the empty type."""
    event_count: int
    first_event_time: datetime | None
    last_event_time: datetime | None
    parked_time: datetime
    settled_time: datetime | None


def store(connection: Connection[Any], batch: Parked) -> int:
    """Park a batch; returns its number. A batch that is parked already is not parked twice."""
    envelopes = [_envelope(event) for event in batch.events]
    payloads = [envelope.SerializeToString(deterministic=True) for envelope in envelopes]
    digest = hashlib.sha256(b"".join(sorted([*(_sha256(p) for p in payloads), *(r.digest for r in batch.rejected)])))
    counts = Counter([*(event.type for event in batch.events), *("" for _ in batch.rejected)])
    times = sorted(event.time for event in batch.events)
    findings = [
        {
            "check": one.check,
            "event_type": one.event_type,
            "field": one.field,
            "message": one.message,
            "figures": one.figures,
        }
        for one in batch.findings
    ]
    parameters = {
        "tenant": batch.tenant_id,
        "digest": digest.digest(),
        "reason": batch.reason,
        "findings": orjson.dumps(findings).decode(),
        "counts": orjson.dumps(counts).decode(),
        "count": batch.event_count,
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
    }
    # The tenant is locked: nobody else parks the same batch between the two statements.
    row = connection.execute(
        "SELECT parked_batch_id FROM parked_batches"
        " WHERE tenant_id = %(tenant)s AND digest = %(digest)s AND status = 'parked'",
        parameters,
    ).fetchone()
    if row is not None:
        return int(row[0])
    row = connection.execute(
        "INSERT INTO parked_batches (tenant_id, digest, reason, findings, event_counts, event_count, first_event_time,"
        " last_event_time) VALUES (%(tenant)s, %(digest)s, %(reason)s, %(findings)s, %(counts)s, %(count)s, %(first)s,"
        " %(last)s) RETURNING parked_batch_id",
        parameters,
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of one row
    number = int(row[0])
    rows: list[tuple[Any, ...]] = [
        (batch.tenant_id, number, place, event.type, event.source, event.event_id, "", "protobuf", payload, b"", "f")
        for place, (event, payload) in enumerate(zip(batch.events, payloads, strict=True))
    ]
    for place, letter in enumerate(batch.rejected, start=len(rows)):
        told = (letter.source, letter.event_id, letter.reason, letter.form, letter.payload, letter.digest)
        rows.append((batch.tenant_id, number, place, "", *told, "t" if letter.truncated else "f"))
    connection.execute(
        sql.SQL("INSERT INTO parked_events ({names}) SELECT {values} FROM {staged}").format(
            names=sql.SQL(", ").join(map(sql.Identifier, _EVENTS)),
            values=sql.SQL(", ").join([*map(sql.Identifier, list(_EVENTS)[:-1]), sql.SQL("truncated::boolean")]),
            staged=stage(connection, "parked_events", batch_of(_EVENTS, rows)),
        )
    )
    return number


def find(
    connection: Connection[Any],
    *,
    tenant_id: str | None = None,
    ids: Sequence[int] | None = None,
    status: str | None = "parked",
    limit: int = 100,
) -> list[ParkedBatch]:
    """Batches by their number: of one tenant or all, those of ``ids`` or all, of one status or any."""
    statement = f"""
        SELECT {_COLUMNS} FROM parked_batches
        WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
          AND (%(ids)s::bigint[] IS NULL OR parked_batch_id = ANY (%(ids)s))
          AND (%(status)s::text IS NULL OR status = %(status)s)
        ORDER BY parked_batch_id LIMIT %(limit)s
    """  # noqa: S608 - made of constants
    with connection.cursor(row_factory=class_row(ParkedBatch)) as cursor:
        parameters = {
            "tenant": tenant_id,
            "ids": list(ids) if ids is not None else None,
            "status": status,
            "limit": limit,
        }
        return cursor.execute(statement.encode(), parameters).fetchall()


def sample(connection: Connection[Any], batch: ParkedBatch, limit: int = 5) -> list[str]:
    """The first events of a batch, for people to read."""
    rows = connection.execute(
        "SELECT form, payload FROM parked_events WHERE tenant_id = %s AND parked_batch_id = %s"
        " ORDER BY event_number LIMIT %s",
        (batch.tenant_id, batch.parked_batch_id, limit),
    )
    return [_text(form, payload) for form, payload in rows]


def release(connection: Connection[Any], parked_batch_id: int) -> IngestResult:
    """Take a parked batch in after all, in one transaction. What was stored meanwhile is not stored twice.

    Args:
        connection: the owner's, without a transaction under way.
        parked_batch_id: its number.

    Raises:
        NotParked: it is not parked, or not any more; nothing was changed.
        psycopg.Error: the database did not answer or refused; nothing was changed.
    """
    from conductor_warehouse.ingestion import ingest_within  # noqa: PLC0415 - ingestion imports the gate

    with connection.transaction():
        # Nothing is locked or written before the tenant is, by ingestion: see there.
        batch = _parked(connection, parked_batch_id)
        rows = connection.execute(
            "SELECT form, payload, event_source, event_id, reason, digest, truncated FROM parked_events"
            " WHERE tenant_id = %s AND parked_batch_id = %s ORDER BY event_number",
            (batch.tenant_id, parked_batch_id),
            binary=True,
        ).fetchall()
        events = [_restored(batch.tenant_id, *row) for row in rows]
        result = ingest_within(connection, events, batch.tenant_id, mode=Mode.RECORD)
        _settle(connection, batch, "released")
        return result


def discard(connection: Connection[Any], parked_batch_id: int) -> ParkedBatch:
    """Forget the events of a parked batch; that it was there, and why, stays known.

    Raises:
        NotParked: it is not parked, or not any more.
    """
    with connection.transaction():
        batch = _parked(connection, parked_batch_id)
        _settle(connection, batch, "discarded")
        return batch


def _parked(connection: Connection[Any], parked_batch_id: int) -> ParkedBatch:
    found = find(connection, ids=[parked_batch_id], status=None)
    if not found:
        raise NotParked(f"there is no parked batch {parked_batch_id}")
    if found[0].status != "parked":
        raise NotParked(f"batch {parked_batch_id} is {found[0].status} already")
    return found[0]


def _settle(connection: Connection[Any], batch: ParkedBatch, status: str) -> None:
    settled = connection.execute(
        "UPDATE parked_batches SET status = %s, settled_time = clock_timestamp()"
        " WHERE tenant_id = %s AND parked_batch_id = %s AND status = 'parked'",
        (status, batch.tenant_id, batch.parked_batch_id),
    )
    if settled.rowcount != 1:
        raise NotParked(f"somebody else has just dealt with batch {batch.parked_batch_id}")
    connection.execute(
        "DELETE FROM parked_events WHERE tenant_id = %s AND parked_batch_id = %s",
        (batch.tenant_id, batch.parked_batch_id),
    )


def _envelope(event: Event) -> CloudEvent:
    envelope = CloudEvent(
        id=event.event_id,
        source=event.source,
        spec_version="1.0",
        type=event.type,
        tenant_id=event.tenant_id,
        subject=event.subject,
    )
    envelope.time.FromDatetime(event.time)
    envelope.proto_data.Pack(event.data, deterministic=True)
    return envelope


def _restored(
    tenant_id: str, form: str, payload: bytes, source: str, event_id: str, reason: str, digest: bytes, truncated: bool
) -> Event | Rejected:
    """The event as ingestion would have had it."""
    if truncated:
        known_form: Literal["json", "protobuf"] = "json" if form == "json" else "protobuf"
        return Rejected(reason, known_form, payload, digest, truncated, tenant_id, source, event_id)
    return parse(payload if form == "json" else CloudEvent.FromString(payload), tenant_id)


def _text(form: str, payload: bytes) -> str:
    return payload.decode(errors="replace") if form == "json" else str(CloudEvent.FromString(payload))


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
