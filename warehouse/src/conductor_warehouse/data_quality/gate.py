"""The gate that a batch passes on its way in: a batch that is wrong as a whole is parked, and nothing of it is stored.

Within the transaction that stores the batch, after its tenants are locked::

    verdict = gate.inspect(connection, events, rejected, mode)
    new = <store verdict.events; which of them were not known before>
    gate.record(connection, verdict, new)

``inspect`` only reads. What is parked is one tenant's part of a batch; the other tenants' goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from psycopg import Connection, sql

from conductor_warehouse.data_quality import checks, history, parked_batches, profile, profiles
from conductor_warehouse.data_quality.checks import Finding, Severity
from conductor_warehouse.data_quality.mode import Mode
from conductor_warehouse.data_quality.parked_batches import Parked
from conductor_warehouse.data_quality.profile import Profile
from conductor_warehouse.data_quality.profiles import Key, Known, Update
from conductor_warehouse.events import Event, Rejected
from conductor_warehouse.staging import TEXT, batch_of, stage

_LOG = logging.getLogger(__name__)
_IDENTITY = {"tenant_id": TEXT, "source": TEXT, "event_id": TEXT}
_OTHER_TENANT = "tenantid: "
"""Begins the reason of letters whose event is another tenant's: they say nothing about this one's data."""


@dataclass(frozen=True)
class Verdict:
    """What the gate makes of a batch."""

    events: list[Event]
    """Those that go on."""
    rejected: list[Rejected]
    """Those that become dead letters."""
    parked: tuple[Parked, ...] = ()
    findings: tuple[tuple[str, Finding], ...] = ()
    """With their tenant."""
    known: Known | None = None
    """None where nothing is to be recorded."""
    profiles: Mapping[Key, Profile] = field(default_factory=dict)
    """Of the events that go on, by tenant and type, each event once."""

    @property
    def parked_count(self) -> int:
        """Events that are parked, with those of them that could not be read."""
        return sum(batch.event_count for batch in self.parked)


def inspect(
    connection: Connection[Any],
    events: Sequence[Event],
    rejected: Sequence[Rejected] = (),
    mode: Mode = Mode.PARK,
) -> Verdict:
    """Look at a batch before anything of it is stored. Writes nothing.

    Args:
        connection: within the batch's transaction, the tenants locked.
        events: the batch's events, of any tenants.
        rejected: what of the batch could not be taken in.
        mode: whether to park.
    """
    if mode is Mode.OFF or not events:
        return Verdict(list(events), list(rejected))
    groups = _groups(events)
    known = profiles.read(connection, groups)
    batch = {key: profile.of(key[1], group, known.received) for key, group in groups.items()}
    findings = {key: checks.find(key[1], one, partial(known.before, key)) for key, one in batch.items()}
    alarms = _letters(events, rejected)
    parked: list[Parked] = []
    if mode is Mode.PARK:
        suspects = {key[0] for key, found in findings.items() if _suspicious(found)}
        suspects |= {tenant for tenant, found in alarms.items() if _suspicious(found)}
        for tenant in sorted(suspects):
            own = {key: group for key, group in groups.items() if key[0] == tenant}
            confirmed = _confirmed(connection, tenant, own, known, alarms.get(tenant, []))
            if confirmed:
                mine = [event for event in events if event.tenant_id == tenant]
                letters = [letter for letter in rejected if letter.tenant_id == tenant]
                parked.append(Parked(tenant, mine, letters, confirmed))
    gone = {one.tenant_id for one in parked}
    told = [(one.tenant_id, found) for one in parked for found in one.findings]
    # What was suspected and not confirmed is worth a look all the same.
    told += [
        (tenant, replace(one, severity=Severity.WARNING))
        for tenant, found in (*((key[0], found) for key, found in findings.items()), *alarms.items())
        if tenant not in gone
        for one in found
    ]
    return Verdict(
        events=[event for event in events if event.tenant_id not in gone] if gone else list(events),
        rejected=[letter for letter in rejected if letter.tenant_id not in gone] if gone else list(rejected),
        parked=tuple(parked),
        findings=tuple(told),
        known=known,
        profiles={key: one for key, one in batch.items() if key[0] not in gone},
    )


def record(connection: Connection[Any], verdict: Verdict, new: Sequence[Event]) -> None:
    """Keep what :func:`inspect` found: profiles, findings, and the parked batches with all their events.

    Args:
        connection: within the same transaction.
        verdict: of this batch.
        new: those of ``verdict.events`` that were not stored before.
    """
    if verdict.known is None:
        return
    received: dict[Key, int] = {}
    for event in verdict.events:
        key = (event.tenant_id, event.type)
        received[key] = received.get(key, 0) + 1
    stored: dict[Key, list[Event]] = {}
    for event in new:
        stored.setdefault((event.tenant_id, event.type), []).append(event)
    updates, findings = {}, list(verdict.findings)
    for key, count in received.items():
        own = stored.get(key, [])
        seen = verdict.profiles[key]
        fresh = seen if len(own) == seen.events else profile.of(key[1], own, verdict.known.received)
        updates[key] = Update(count, len(own), fresh)
        findings += [(key[0], one) for one in checks.duplicate_share(key[1], count - len(own), count)]
    profiles.write(connection, verdict.known, updates)
    profiles.write_findings(connection, verdict.known, findings)
    for batch in verdict.parked:
        number = parked_batches.store(connection, batch)
        _LOG.warning(
            "parked batch %d: %d events of tenant %s: %s", number, batch.event_count, batch.tenant_id, batch.reason
        )


def _groups(events: Sequence[Event]) -> dict[Key, list[Event]]:
    """The events by tenant and type, each of them once."""
    first: dict[tuple[str, str, str], Event] = {}
    for event in events:
        first.setdefault(event.identity, event)
    groups: dict[Key, list[Event]] = {}
    for event in first.values():
        groups.setdefault((event.tenant_id, event.type), []).append(event)
    return groups


def _letters(events: Sequence[Event], rejected: Sequence[Rejected]) -> dict[str, list[Finding]]:
    """Tenants of which much can't be taken in."""
    if not rejected:
        return {}
    alarms = {}
    for tenant in {event.tenant_id for event in events}:
        letters = sum(letter.tenant_id == tenant and not letter.reason.startswith(_OTHER_TENANT) for letter in rejected)
        own = sum(event.tenant_id == tenant for event in events)
        if found := list(checks.dead_letter_share(letters, letters + own)):
            alarms[tenant] = found
    return alarms


def _suspicious(findings: Sequence[Finding]) -> bool:
    return any(one.severity is Severity.ERROR for one in findings)


def _confirmed(
    connection: Connection[Any],
    tenant_id: str,
    groups: Mapping[Key, Sequence[Event]],
    known: Known,
    alarms: Sequence[Finding],
) -> list[Finding]:
    """What is wrong with a tenant's new events by the tenant's own history too."""
    stored = _stored(connection, [event for group in groups.values() for event in group])
    confirmed: list[Finding | None] = []
    everything: list[Event] = []
    for (_, kind), group in groups.items():
        new = [event for event in group if event.identity not in stored]
        everything += new
        # Events that were stored before are never a reason: a batch can always be sent again.
        seen = profile.of(kind, new, known.received)
        found = checks.find(kind, seen, partial(known.before, (tenant_id, kind)))
        confirmed += [history.confirm(connection, one, new) for one in found if one.severity is Severity.ERROR]
    if everything:
        confirmed += [history.confirm(connection, one, everything) for one in alarms if one.severity is Severity.ERROR]
    return [one for one in confirmed if one is not None]


def _stored(connection: Connection[Any], events: Sequence[Event]) -> set[tuple[str, str, str]]:
    """Identities of those events that are in the inbox."""
    staged = stage(connection, "suspects", batch_of(_IDENTITY, [event.identity for event in events]))
    return set(
        connection.execute(
            sql.SQL("SELECT tenant_id, source, event_id FROM inbox JOIN {} USING (tenant_id, source, event_id)").format(
                staged
            )
        ).fetchall()
    )
