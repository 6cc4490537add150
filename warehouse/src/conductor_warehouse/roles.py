"""Who may do what in the database."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

INGEST_ROLE = "conductor_ingest"
"""Writes events and what follows from them, of the tenant that is set."""
READER_ROLE = "conductor_reader"
"""Reads, of the tenant that is set."""
TENANT_SCHEMA = "conductor_tenant"
"""Holds the tenants' views of tables that can't have row-level security, by the tables' own names."""


def bind(connection: Connection[Any], role: str, tenant_id: str) -> None:
    """For the rest of the transaction, be ``role`` and see one tenant's rows only."""
    connection.execute(
        "SELECT set_config('conductor.tenant_id', %s, true),"
        " set_config('search_path', concat_ws(', ', quote_ident(%s), quote_ident(current_schema())), true),"
        " set_config('role', %s, true)",
        (tenant_id, TENANT_SCHEMA, role),
    )
