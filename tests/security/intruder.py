"""Somebody bound to one tenant, who tries whatever the database lets a role try."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg import errors, sql

from conductor_warehouse import retention
from conductor_warehouse.roles import bind
from security.database_objects import Function, Relation, functions, relations

MINE, OTHER = "acme", "globex"
_REFUSED = (errors.InsufficientPrivilege, errors.WithCheckOptionViolation)
_SAMPLES: dict[str, Any] = {
    "timestamp with time zone": "2026-03-01",
    "interval": "1 day",
    "integer": 1,
    "bigint": 1,
    "boolean": True,
    "text[]": [OTHER],
}
_TIME_COLUMNS = ("completed_time", "evaluated_time", "measured_time", "event_time", "queued_time", "merged_time")


class Intruder:
    """Tries whatever there is, as a role that is bound to a tenant, and tells what it should not have got."""

    def __init__(self, connection: psycopg.Connection[Any], role: str) -> None:
        self._connection, self._role = connection, role
        self._found: list[str] = []
        self._heard: list[str] = []
        self.attempts = 0
        connection.add_notice_handler(lambda notice: self._heard.append(notice.message_primary or ""))
        self._relations = relations(connection)
        self._tables = [one for one in self._relations if one.kind in "rpf"]
        self._before = self._digest()

    def crossings(self) -> list[str]:
        """Everything that is wrong."""
        for relation in self._relations:
            self._read(relation)
            self._write(relation)
        for function in functions(self._connection):
            self._call(function)
        if self._digest() != self._before:
            self._found.append("something was changed after all")
        return self._found

    @contextmanager
    def _bound(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction of the role, which leaves nothing behind."""
        with self._connection.transaction(force_rollback=True):
            bind(self._connection, self._role, MINE)
            yield self._connection

    def _attempt(self, what: str, try_it: Callable[[psycopg.Connection[Any]], object]) -> bool:
        """Whether it was let through. It must change nothing that is not this tenant's, be it let through or not."""
        self.attempts += 1
        try:
            with self._bound() as connection:
                try_it(connection)
                connection.execute("RESET ROLE")
                if self._digest() != self._before:
                    self._found.append(f"{self._role} changed what is {OTHER}'s: {what}")
        except _REFUSED:
            return False
        except (errors.WrongObjectType, errors.ObjectNotInPrerequisiteState, errors.FeatureNotSupported):
            return False  # not a thing that can be written to
        except errors.InternalError_ as error:
            # TimescaleDB can't plan a deletion through a view whose condition names the tenant once more.
            if "subplan target list" not in str(error):
                raise
            return False
        except psycopg.Error as error:
            # Were the row there, were it not there: an answer that differs would tell.
            self._found.append(f"{self._role} got an answer other than a refusal: {what}: {error.diag.message_primary}")
        return True

    def _read(self, relation: Relation) -> None:
        self.attempts += 1
        try:
            with self._bound() as connection:
                self._look(connection, relation, "")
                for setting in (
                    "",
                    " ",
                    "*",
                    "%",
                    OTHER.upper(),
                    f"{OTHER} ",
                    f"{OTHER}' OR 'a'='a",
                    f"{MINE},{OTHER}",
                ):
                    connection.execute("SELECT set_config('conductor.tenant_id', %s, true)", (setting,))
                    self._look(connection, relation, f" with the setting {setting!r}")
                connection.execute("RESET conductor.tenant_id")
                self._look(connection, relation, " without the setting")
        except errors.InsufficientPrivilege:
            self._find_rights_on_columns(relation)
            return
        if relation.has_tenant:
            self._overhear(relation)

    def _find_rights_on_columns(self, relation: Relation) -> None:
        """A role that may not read all of a relation may not read some of it."""
        [(some,)] = self._connection.execute(
            "SELECT has_any_column_privilege(%s, %s::regclass, 'SELECT')",
            (self._role, relation.identifier.as_string()),
        ).fetchall()
        if some:
            self._found.append(f"{self._role} may read some columns of {relation}")

    def _look(self, connection: psycopg.Connection[Any], relation: Relation, how: str) -> None:
        """Nothing of the other tenant may be seen: not in its column, nor by its name anywhere else."""
        whose = sql.SQL("one.tenant_id") if relation.has_tenant else sql.SQL("NULL")
        statement = sql.SQL(
            "SELECT count(*) FILTER (WHERE {whose} = {other}), count(*) FILTER (WHERE one::text LIKE {like}),"
            " count({whose}), count(*) FROM {relation} AS one"
        ).format(whose=whose, other=OTHER, like=f"%{OTHER}%", relation=relation.identifier)
        theirs, named, tenants, _ = connection.execute(statement).fetchone() or (0, 0, 0, 0)
        if theirs or named:
            self._found.append(f"{self._role} sees {max(theirs, named)} rows of {OTHER} in {relation}{how}")
        if how and relation.has_tenant and tenants:
            shared = connection.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE tenant_id <> {}").format(
                    relation.identifier, retention.EVERY_TENANT
                )
            ).fetchone()
            if shared != (0,):
                self._found.append(f"{self._role} sees a tenant's rows in {relation}{how}")

    def _overhear(self, relation: Relation) -> None:
        """A condition that costs nothing is tried on each row first, unless the policy comes before it."""
        self._heard.clear()
        with self._bound() as connection:
            # An index would find the tenant's rows before the condition is tried.
            connection.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
            connection.execute(
                "CREATE FUNCTION pg_temp.tell(told text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001"
                " AS $$BEGIN RAISE NOTICE '%', told; RETURN true; END$$"
            )
            connection.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE pg_temp.tell(tenant_id)").format(relation.identifier)
            )
        if any(OTHER in told for told in self._heard):
            self._found.append(f"{self._role} overhears rows of {OTHER} in {relation}")

    def _write(self, relation: Relation) -> None:
        name, other = relation.identifier, sql.Literal(OTHER)
        column = sql.Identifier("tenant_id" if relation.has_tenant else relation.columns[0])
        theirs = sql.SQL("tenant_id = {}").format(other) if relation.has_tenant else sql.SQL("true")
        rows: tuple[tuple[str, sql.Composable], ...] = (
            ("UPDATE", sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(name, column, column, theirs)),
            ("DELETE", sql.SQL("DELETE FROM {} WHERE {}").format(name, theirs)),
        )
        for what, statement in rows:
            if self._attempt(f"{what} of {relation}", partial(self._none, statement)):
                # Let through on none of the other's rows; what belongs to no tenant is nobody's to write.
                self._shared(relation, what)
        everything: list[tuple[str, sql.Composable]] = [
            ("UPDATE of all", sql.SQL("UPDATE {} SET {} = {}").format(name, column, column)),
            ("DELETE of all", sql.SQL("DELETE FROM {}").format(name)),
            ("TRUNCATE", sql.SQL("TRUNCATE {} CASCADE").format(name)),
            ("LOCK", sql.SQL("SELECT FROM {} WHERE {} FOR UPDATE").format(name, theirs)),
        ]
        if relation.has_tenant:
            give = sql.SQL("UPDATE {} SET tenant_id = {}").format(name, other)
            everything.append(("UPDATE to the other tenant", give))
        for what, statement in everything:
            if self._attempt(f"{what} of {relation}", partial(_execute, statement)):
                self._shared(relation, what)
        for row in self._samples(relation):
            columns = sql.SQL(", ").join(map(sql.Identifier, relation.columns))
            insert = sql.SQL(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE"
                " SELECT {columns} FROM jsonb_populate_record(NULL::{}, {})"
            ).format(name, name, json.dumps(row), columns=columns)
            for ending in ("", " ON CONFLICT DO NOTHING"):
                statement = insert + sql.SQL(ending)
                if self._attempt(f"INSERT into {relation}", partial(_execute, statement)):
                    self._found.append(f"{self._role} may INSERT a row of {OTHER} into {relation}{ending}")

    def _none(self, statement: sql.Composable, connection: psycopg.Connection[Any]) -> None:
        count = _execute(statement, connection)
        if count > 0:
            self._found.append(f"{self._role} reached {count} rows: {statement.as_string()}")

    def _shared(self, relation: Relation, what: str) -> None:
        if not relation.has_tenant:
            self._found.append(f"{self._role} may {what} {relation}, which is no tenant's")

    def _samples(self, relation: Relation) -> Sequence[dict[str, Any]]:
        """A row of the other tenant, to be inserted as it is and as a new one."""
        with self._connection.transaction(force_rollback=True):
            # The tenants' views show the tenant's rows to the owner too.
            self._connection.execute("SELECT set_config('conductor.tenant_id', %s, true)", (OTHER,))
            condition = sql.SQL("WHERE tenant_id = {}").format(OTHER) if relation.has_tenant else sql.SQL("")
            found = self._connection.execute(
                sql.SQL("SELECT to_jsonb(one) FROM {} AS one {} LIMIT 1").format(relation.identifier, condition)
            ).fetchone()
        if found is None:
            return ()
        row: dict[str, Any] = found[0]
        new = {
            name: f"{value}x" if name.endswith("_id") and isinstance(value, str) else value
            for name, value in row.items()
        }
        return (row, new | {"tenant_id": OTHER} if relation.has_tenant else new)

    def _call(self, function: Function) -> None:
        """With every table's name and the other tenant's for a text; triggers from a table of the role's own."""
        if function.is_trigger:
            self._pull(function)
            return
        for told in (*(table.name for table in self._tables), OTHER):
            arguments = [told if kind == "text" else _SAMPLES.get(kind) for kind in function.arguments]
            call = sql.SQL("SELECT one::text FROM {}({}) AS one").format(
                sql.SQL(function.name),
                sql.SQL(", ").join(map(sql.Literal, arguments)),
            )
            self.attempts += 1
            try:
                with self._bound() as connection:
                    seen = connection.execute(call).fetchall()
                    connection.execute("RESET ROLE")
                    if self._digest() != self._before:
                        self._found.append(f"{self._role} changed what is {OTHER}'s by {function.signature}")
                    if any(OTHER in (text or "") for (text,) in seen):
                        self._found.append(f"{self._role} sees what is {OTHER}'s by {function.signature}")
            except errors.InsufficientPrivilege:
                return
            except psycopg.Error as error:
                if OTHER in str(error) and told != OTHER:
                    self._found.append(f"{self._role} is told of {OTHER} by {function.signature}: {error}")

    def _pull(self, function: Function) -> None:
        self.attempts += 1
        try:
            with self._bound() as connection:
                columns = ", ".join(f"{name} timestamptz DEFAULT '1999-01-01'" for name in _TIME_COLUMNS)
                connection.execute(f"CREATE TEMP TABLE mine (tenant_id text, {columns})".encode())
                connection.execute(
                    "CREATE TRIGGER pulled AFTER INSERT ON mine REFERENCING NEW TABLE AS changed"
                    f" FOR EACH STATEMENT EXECUTE FUNCTION {function.signature}".encode()
                )
                self._found.append(f"{self._role} may make a trigger of {function.signature}, which runs as its owner")
                connection.execute("INSERT INTO mine VALUES (%s)", (OTHER,))
                connection.execute("RESET ROLE")
                if self._digest() != self._before:
                    self._found.append(f"{self._role} changed what is {OTHER}'s by a trigger of {function.signature}")
        except psycopg.Error:
            return

    def _digest(self) -> list[Any]:
        """Of all rows that are not this tenant's own."""
        parts = [
            sql.SQL(
                "(SELECT concat_ws(' ', count(*), md5(string_agg(one::text, '|' ORDER BY one::text)))"
                " FROM ONLY {} AS one WHERE {})"
            ).format(
                table.identifier,
                sql.SQL("tenant_id <> {}").format(MINE) if table.has_tenant else sql.SQL("true"),
            )
            for table in self._tables
        ]
        row = self._connection.execute(sql.SQL("SELECT ") + sql.SQL(", ").join(parts)).fetchone()
        return list(row or ())


def _execute(statement: sql.Composable, connection: psycopg.Connection[Any]) -> int:
    """Returns how many rows it was about."""
    return connection.execute(sql.Composed([statement])).rowcount
