"""What a database of ours holds that somebody could ask, from PostgreSQL's catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

_NOT_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
_OF_EXTENSION = "EXISTS (SELECT FROM pg_depend WHERE objid = {}.oid AND deptype = 'e')"


@dataclass(frozen=True)
class Relation:
    """A table, partition, view, materialized view or foreign table."""

    schema: str
    name: str
    kind: str
    columns: tuple[str, ...]
    """Those that can be written."""
    has_tenant: bool
    is_part: bool
    """Whether it is a partition or chunk, or of another's making, as TimescaleDB's are."""

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Function:
    """A function that runs as its owner."""

    name: str
    signature: str
    arguments: tuple[str, ...]
    """Their types."""
    is_trigger: bool
    settings: tuple[str, ...]


def relations(connection: psycopg.Connection[Any]) -> list[Relation]:
    """All of them, in all schemas of ours."""
    rows = connection.execute(
        f"""
        SELECT n.nspname, c.relname, c.relkind::text,
          coalesce(array_agg(a.attname::text ORDER BY attnum) FILTER (WHERE a.attgenerated = ''), '{{}}'),
          coalesce(bool_or(a.attname = 'tenant_id'), false),
          n.nspname LIKE '\\_%' OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_NOT_OURS} AND NOT {_OF_EXTENSION.format("c")}
        GROUP BY c.oid, 1, 2, 3 HAVING count(a.attname) > 0 ORDER BY 1, 2
        """.encode()  # noqa: S608 - our own text
    ).fetchall()
    return [Relation(where, name, kind, tuple(columns), *flags) for where, name, kind, columns, *flags in rows]


def functions(connection: psycopg.Connection[Any]) -> list[Function]:
    """All that run as their owner."""
    rows = connection.execute(
        f"""
        SELECT format('%I.%I', n.nspname, proname), p.oid::regprocedure::text,
          (SELECT coalesce(array_agg(format_type(kind, NULL) ORDER BY place), '{{}}')
           FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS argument (kind, place)),
          prorettype = 'trigger'::regtype, coalesce(proconfig, '{{}}')
        FROM pg_proc AS p
        JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE prosecdef AND {_NOT_OURS} AND NOT {_OF_EXTENSION.format("p")}
        ORDER BY 1
        """.encode()  # noqa: S608 - our own text
    ).fetchall()
    return [
        Function(name, signature, tuple(kinds), trigger, tuple(told)) for name, signature, kinds, trigger, told in rows
    ]
