"""Who computes features of a tenant does so alone."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from psycopg import Connection


def lock_tenants(connection: Connection[Any], tenant_ids: set[str]) -> datetime:
    """Wait until nobody else ingests events of these tenants; returns the time from then on. Lasts until the commit.

    Two transactions at once would each compute features without the other's builds, and the later commit would hide
    it. Locks are taken in one order, so that two batches can't wait for each other. Nothing may be written before:
    PostgreSQL numbers transactions at their first write, and of one tenant's transactions the later must have the
    greater number, since the tailing writer carries them in that order.
    """
    keys = sorted({int.from_bytes(_digest(f"ingest {tenant_id}"), signed=True) for tenant_id in tenant_ids})
    connection.execute("SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", (keys,))
    # Not now(), which is when the transaction began: it may have begun before the one that it waited for.
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    moment: datetime = row[0]
    return moment


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
