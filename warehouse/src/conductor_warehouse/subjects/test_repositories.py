"""How far events have told of each repository's tests: what is later has no feature rows that could become others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from psycopg import Connection

Repository = tuple[str, str]
"""Tenant and repository."""


def note(connection: Connection[Any], told: Iterable[tuple[str, str, datetime]]) -> Mapping[Repository, datetime]:
    """Note that events told of these repositories as of these moments; returns how far each was told of before.

    In the transaction that stores the events, with the tenants locked. New repositories are not there.
    """
    furthest: dict[Repository, datetime] = {}
    for tenant_id, repository, time in told:
        key = (tenant_id, repository)
        furthest[key] = max(time, furthest.get(key, time))
    rows = sorted(furthest.items())
    found = connection.execute(
        """
        WITH told AS (
          SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS told (tenant_id, repository, latest_time)
        ),
        before AS (SELECT known.* FROM test_repositories AS known JOIN told USING (tenant_id, repository)),
        written AS (
          INSERT INTO test_repositories AS known SELECT * FROM told
          ON CONFLICT (tenant_id, repository) DO UPDATE SET latest_time = excluded.latest_time
          WHERE known.latest_time < excluded.latest_time
        )
        SELECT tenant_id, repository, latest_time FROM before
        """,
        ([tenant for (tenant, _), _ in rows], [name for (_, name), _ in rows], [time for _, time in rows]),
        binary=True,
    )
    return {(tenant_id, repository): time for tenant_id, repository, time in found}
