"""Takes events in. What is told of one batch happens in one transaction, or not at all.

parse → lock tenants → quality gate → inbox → subjects and facts → feature logs → dead letters → commit
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import Connection, sql
from psycopg.pq import TransactionStatus

from conductor_rpc import names
from conductor_rpc.telemetry import OFF, Telemetry
from conductor_warehouse import dead_letters, retention, subjects
from conductor_warehouse.data_quality import gate
from conductor_warehouse.data_quality.mode import Mode
from conductor_warehouse.dead_letters import DeadLetter
from conductor_warehouse.events import Event, Incoming, Rejected, parse
from conductor_warehouse.features import log
from conductor_warehouse.locks import lock_tenants
from conductor_warehouse.roles import INGEST_ROLE, bind
from conductor_warehouse.staging import BYTES, TEXT, TIME, batch_of, stage

_INBOX = {
    "tenant_id": TEXT,
    "source": TEXT,
    "event_id": TEXT,
    "event_type": TEXT,
    "event_time": TIME,
    "subject": TEXT,
    "data": BYTES,
}
MAXIMUM_TOLD = 100
"""Dead letters that a result names."""


@dataclass
class IngestResult:
    """What became of events."""

    received: int = 0
    stored: int = 0
    """Stored by this call, and durable."""
    duplicates: int = 0
    """Had been stored before, or came twice."""
    expired: int = 0
    """Older than the tenant's retention: their data would be deleted again."""
    parked: int = 0
    """Put aside with their whole batch, which looks wrong: durable, and not in any table until somebody releases it."""
    dead_letter_count: int = 0
    """Put aside, with the reason."""
    dead_letters: list[Rejected] = field(default_factory=list)
    """The first of them, at most 100, without their payload."""
    feature_rows: int = 0
    """Rows appended to the feature logs."""

    def add(self, other: IngestResult) -> None:
        """Count in what became of further events."""
        self.received += other.received
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.expired += other.expired
        self.parked += other.parked
        self.dead_letter_count += other.dead_letter_count
        self.dead_letters += other.dead_letters[: MAXIMUM_TOLD - len(self.dead_letters)]
        self.feature_rows += other.feature_rows

    def tell(self, telemetry: Telemetry) -> None:
        """Count all of it: zeros too, since an alert sees the first of something only after a zero."""
        for outcome in ("stored", "duplicates", "expired", "parked"):
            telemetry.count(names.INGEST_EVENTS, {names.OUTCOME: outcome}, getattr(self, outcome))
        telemetry.count(names.INGEST_EVENTS, {names.OUTCOME: "dead_letters"}, self.dead_letter_count)
        telemetry.count(names.INGEST_FEATURE_ROWS, {}, self.feature_rows)


def ingest(
    connection: Connection[Any],
    events: Iterable[Incoming],
    tenant_id: str | None = None,
    *,
    mode: Mode = Mode.PARK,
    telemetry: Telemetry = OFF,
) -> IngestResult:
    """Store a batch of events with the feature rows that they touch. When it returns, all of it is committed.

    Safe to repeat, and safe beside others who ingest the same events at the same time.

    Args:
        connection: one without a transaction under way.
        events: the batch; a thousand is a good size.
        tenant_id: the tenant that all must belong to. With it, the database's row-level security is in force, and
            events of other tenants become dead letters. Without it events may be of any tenant, which takes the
            owner's connection.
        mode: whether a tenant's part of the batch that looks wrong as a whole is parked.
        telemetry: told of the stages, and of what became of the events.

    Raises:
        psycopg.Error: the database did not answer or refused; nothing was stored.
    """
    with telemetry.stage(names.INGEST_PARSE):
        batch = [parse(event, tenant_id) for event in events]
    return ingest_parsed(connection, batch, tenant_id, mode=mode, telemetry=telemetry)


def ingest_parsed(
    connection: Connection[Any],
    batch: Sequence[Event | Rejected],
    tenant_id: str | None = None,
    *,
    mode: Mode = Mode.PARK,
    telemetry: Telemetry = OFF,
) -> IngestResult:
    """As :func:`ingest`, for events that were read already."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise RuntimeError("events are acknowledged after their commit: the connection must not be in a transaction")
    with ExitStack() as transaction:
        transaction.enter_context(connection.transaction())
        result = ingest_within(connection, batch, tenant_id, mode=mode, telemetry=telemetry)
        with telemetry.stage(names.INGEST_COMMIT):
            transaction.close()
    result.tell(telemetry)
    return result


def requeue(
    connection: Connection[Any],
    *,
    tenant_id: str | None = None,
    ids: Sequence[int] | None = None,
    after: int = 0,
    limit: int = 1_000,
) -> tuple[IngestResult, int | None]:
    """Try dead letters again, oldest first: those that can be taken in now are, and are forgotten as letters.

    Returns what became of at most ``limit`` of them, and the id to go on ``after``; None when there are no more.
    """
    with connection.transaction():
        # The letters are not locked: that would give the transaction its number before its tenants are (see
        # locks.py). Two who try the same letter at once store its event once.
        letters = dead_letters.find(connection, tenant_id=tenant_id, ids=ids, after=after, limit=limit)
        if not letters:
            return IngestResult(), None
        retried = [(letter, _parse_again(letter)) for letter in letters if not letter.truncated]
        result = ingest_within(connection, [event for _, event in retried], tenant_id, mode=Mode.RECORD)
        dead_letters.delete(
            connection, [letter.dead_letter_id for letter, event in retried if isinstance(event, Event)]
        )
        return result, letters[-1].dead_letter_id


def _parse_again(letter: DeadLetter) -> Event | Rejected:
    """A letter whose tenant could be read must stay that tenant's."""
    return parse(letter.incoming, letter.tenant_id or None)


def ingest_within(
    connection: Connection[Any],
    batch: Sequence[Event | Rejected],
    tenant_id: str | None,
    *,
    mode: Mode,
    telemetry: Telemetry = OFF,
) -> IngestResult:
    """As :func:`ingest_parsed`, within a transaction of the caller's that has written nothing yet."""
    events = [event for event in batch if isinstance(event, Event)]
    rejected = [event for event in batch if isinstance(event, Rejected)]
    if tenant_id is not None:
        bind(connection, INGEST_ROLE, tenant_id)
    result = IngestResult(received=len(batch))
    if events:
        with telemetry.stage(names.INGEST_LOCK):
            created = lock_tenants(connection, {event.tenant_id for event in events})
        with telemetry.stage(names.INGEST_GATE):
            events, result.expired = _kept(connection, events)
            verdict = gate.inspect(connection, events, rejected, mode)
        rejected, result.parked = verdict.rejected, verdict.parked_count
        with telemetry.stage(names.INGEST_STORE):
            new = _store_inbox(connection, verdict.events)
            result.stored, result.duplicates = len(new), len(verdict.events) - len(new)
            touched = subjects.store(connection, new)
        with telemetry.stage(names.INGEST_FEATURES):
            result.feature_rows = log.append(connection, touched, created)
            gate.record(connection, verdict, new)
    dead_letters.store(connection, rejected)
    result.dead_letter_count = len(rejected)
    result.dead_letters = [replace(letter, payload=b"") for letter in rejected[:MAXIMUM_TOLD]]
    return result


def _kept(connection: Connection[Any], events: list[Event]) -> tuple[list[Event], int]:
    """The events that are not older than their tenant's retention, and how many are."""
    horizons = retention.horizons(connection, {event.tenant_id for event in events})
    if not horizons:
        return events, 0
    kept = [event for event in events if event.tenant_id not in horizons or event.time >= horizons[event.tenant_id]]
    return kept, len(events) - len(kept)


def _store_inbox(connection: Connection[Any], events: Sequence[Event]) -> list[Event]:
    """Store events that are not known yet; returns those. Of two with the same identity the first one counts."""
    first: dict[tuple[str, str, str], Event] = {}
    for event in events:
        first.setdefault(event.identity, event)
    rows = [
        (*identity, event.type, event.time, event.subject, event.data.SerializeToString(deterministic=True))
        for identity, event in sorted(first.items())
    ]
    stored = connection.execute(
        sql.SQL(
            "INSERT INTO inbox ({names}) SELECT {names} FROM {staged} ON CONFLICT DO NOTHING"
            " RETURNING tenant_id, source, event_id"
        ).format(
            names=sql.SQL(", ").join(map(sql.Identifier, _INBOX)),
            staged=stage(connection, "inbox", batch_of(_INBOX, rows)),
        )
    ).fetchall()
    return [first[identity] for identity in stored]
