"""S5, in the database: bound to one tenant, nothing of another is seen or changed, whatever is there to be asked.

What there is to ask comes from PostgreSQL's catalogue, so a new table, view or function is covered as soon as a
migration makes it. Row-level security guards against code that forgets the tenant: who may run statements of their own
may also name another tenant (it is a session's setting), or take the login's own role back. What they must not get are
rights that the role does not have: hence the tests of functions that run as their owner.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from conductor_features.views import VIEWS
from conductor_warehouse import retention, schema, statistics
from conductor_warehouse.features.backfill import backfill
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.roles import INGEST_ROLE, READER_ROLE, bind
from conductor_workbench.embedded import EmbeddedPostgres
from warehouse.catalogue import random_events
from warehouse.histories import START, Build, completed_event

MINE, OTHER = "acme", "globex"
ROLES = (INGEST_ROLE, READER_ROLE)
_REFUSED = (errors.InsufficientPrivilege, errors.WithCheckOptionViolation)
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


@pytest.fixture(scope="module")
def filled(embedded_postgres: EmbeddedPostgres) -> str:
    """Name of a database with rows of both tenants in every table that has tenants; only copied from."""
    url = embedded_postgres.create_database("crossing")
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        retention.put(connection, MINE, timedelta(days=3_000))
        retention.put(connection, OTHER, timedelta(days=4_000))
        ingest(connection, random_events(31, 400, (MINE, OTHER)))
        statistics.refresh(connection)
        ingest(connection, random_events(32, 60, (MINE, OTHER)))  # under other names: some days are to settle again
        ingest(connection, [json.dumps({"tenantid": tenant}).encode() for tenant in (MINE, OTHER)])
        for key in VIEWS:
            backfill(connection, key)
        for tenant in (MINE, OTHER):
            _park(connection, tenant)
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        # TimescaleDB's scheduler connects to every database, and one that is in use can't be copied.
        connection.execute("ALTER DATABASE crossing ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'crossing'")
    return "crossing"


def _park(connection: psycopg.Connection[Any], tenant: str) -> None:
    """A batch whose durations are in another unit than before."""
    for factor in (1, 1000):
        builds = [
            Build(f"p{factor}-{number}", queued, queued + timedelta(days=2), "SUCCESS", 60.0 * factor + number % 7,
                  tenant, "shop", "parked")
            for number in range(250)
            for queued in [START + timedelta(days=10 * (factor > 1), minutes=number)]
        ]  # fmt: skip
        result = ingest(connection, [completed_event(build) for build in builds])
    assert result.parked == 250


@pytest.fixture
def database(embedded_postgres: EmbeddedPostgres, filled: str) -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection to a copy of it."""
    name = "crossing_copy"
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{filled}"'.encode())
        with psycopg.connect(embedded_postgres.database_url(name), autocommit=True) as owner:
            yield owner
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


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


_SAMPLES: dict[str, Any] = {
    "timestamp with time zone": "2026-03-01",
    "interval": "1 day",
    "integer": 1,
    "bigint": 1,
    "boolean": True,
    "text[]": [OTHER],
}
_TIME_COLUMNS = ("completed_time", "evaluated_time", "measured_time", "event_time", "queued_time", "merged_time")


def _execute(statement: sql.Composable, connection: psycopg.Connection[Any]) -> int:
    """Returns how many rows it was about."""
    return connection.execute(sql.Composed([statement])).rowcount


def test_every_table_with_tenants_has_rows_of_both(database: psycopg.Connection[Any]) -> None:
    """Else the other tests would prove nothing: whoever adds a table adds rows to it here."""
    found = relations(database)
    assert {"inbox", "builds", "feature_log_test_history_v1", "builds_daily_stats"} <= {one.name for one in found}
    empty = []
    if database.execute("SELECT has_timescale()").fetchone() == (True,):
        # TimescaleDB keeps to itself what is to be settled.
        found = [one for one in found if one.name != "statistics_dirty"]
    for relation in found:
        if relation.has_tenant and not relation.is_part:
            for tenant in (MINE, OTHER):
                with database.transaction():
                    database.execute("SELECT set_config('conductor.tenant_id', %s, true)", (tenant,))
                    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE tenant_id = {})")
                    if database.execute(statement.format(relation.identifier, tenant)).fetchone() == (False,):
                        empty.append((str(relation), tenant))
    assert not empty


@pytest.mark.parametrize("role", ROLES)
def test_nothing_of_another_tenant_is_seen_or_changed(database: psycopg.Connection[Any], role: str) -> None:
    intruder = Intruder(database, role)
    found = intruder.crossings()
    assert not found, "\n".join(found)
    print(f"\n    0 of {intruder.attempts} attempts as {role} got through")
    assert intruder.attempts > 500


def test_the_tenants_own_rows_are_seen(database: psycopg.Connection[Any]) -> None:
    """A role that sees nothing at all would pass the other tests."""
    for role in ROLES:
        with database.transaction():
            bind(database, role, MINE)
            for table in (
                "inbox",
                "builds",
                "completed_builds",
                "builds_daily_stats",
                *(v.log_table for v in VIEWS.values()),
            ):
                statement = sql.SQL("SELECT DISTINCT tenant_id FROM {}").format(sql.Identifier(table))
                assert database.execute(statement).fetchall() == [(MINE,)], (role, table)


def test_functions_that_run_as_their_owner_find_nothing_in_a_callers_temporary_schema(
    database: psycopg.Connection[Any],
) -> None:
    """A session's temporary tables come before all others, unless the function's path says that they come last. So a
    caller could put a table of its own in the place of one that the function means, with triggers, or types with casts,
    that then run as the owner, whom no policy binds."""
    loose = []
    for function in functions(database):
        paths = [told.partition("=")[2] for told in function.settings if told.startswith("search_path=")]
        if not paths or paths[0].split(",")[-1].strip() != "pg_temp":
            loose.append((function.signature, paths))
    assert not loose


_BECOME = "RAISE NOTICE 'runs as %', current_user;"


def test_a_temporary_table_in_place_of_the_lakes_gives_no_rights(database: psycopg.Connection[Any]) -> None:
    """The same, tried out: by the trigger that marks changes for the lake."""
    heard = _heard(database)
    with database.transaction(force_rollback=True):
        bind(database, INGEST_ROLE, MINE)
        database.execute(
            "CREATE TEMP TABLE lake_changes (table_name text, tenant_id text, day date, xid xid8,"
            " PRIMARY KEY (table_name, tenant_id, day))"
        )
        database.execute(
            f"CREATE FUNCTION pg_temp.mine() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {_BECOME} RETURN NULL; END$$"
            "".encode()
        )
        database.execute(
            "CREATE TRIGGER mine BEFORE INSERT ON pg_temp.lake_changes FOR EACH ROW EXECUTE FUNCTION pg_temp.mine()"
        )
        database.execute("GRANT ALL ON pg_temp.lake_changes TO PUBLIC")
        database.execute("INSERT INTO inbox VALUES (%s, 's', 'i', 't', now(), '', now(), '')", (MINE,))
    assert heard == []


def test_a_temporary_table_in_place_of_the_partitions_gives_no_rights(database: psycopg.Connection[Any]) -> None:
    """The same, by the function that makes partitions."""
    heard = _heard(database)
    with database.transaction(force_rollback=True):
        bind(database, INGEST_ROLE, MINE)
        database.execute("CREATE TYPE pg_temp.mine AS (told text)")
        database.execute(
            "CREATE FUNCTION pg_temp.mine(pg_temp.mine) RETURNS text LANGUAGE plpgsql"
            f" AS $$BEGIN {_BECOME} RETURN 'month'; END$$".encode()
        )
        database.execute("CREATE CAST (pg_temp.mine AS text) WITH FUNCTION pg_temp.mine(pg_temp.mine) AS IMPLICIT")
        database.execute("CREATE TEMP TABLE time_tables (table_name text, time_column text, partition pg_temp.mine)")
        database.execute("INSERT INTO pg_temp.time_tables VALUES ('test_results', 'completed_time', ROW('x'))")
        database.execute("SELECT public.ensure_partitions('test_results', '2026-03-01', '2026-03-01')")
    assert heard == []


def _heard(connection: psycopg.Connection[Any]) -> list[str]:
    """What code of the caller's says while it runs as somebody else."""
    heard: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        told = notice.message_primary or ""
        if told.startswith("runs as ") and told.split()[-1] not in ROLES:
            heard.append(told)

    connection.add_notice_handler(hear)
    return heard


_PLANTED = {
    "a table without its policy": ("ALTER TABLE builds DISABLE ROW LEVEL SECURITY", "public.builds"),
    "a policy that lets all through": (
        "CREATE POLICY more ON incidents USING (true) WITH CHECK (true)",
        "public.incidents",
    ),
    "a table of all tenants' facts": (
        "GRANT SELECT ON completed_builds TO conductor_reader",
        "public.completed_builds",
    ),
    "a column alone": ("GRANT SELECT (tenant_id) ON statistics_dirty TO conductor_reader", "public.statistics_dirty"),
    "a partition, or chunk, of such a table": (
        "DO $$BEGIN EXECUTE format('GRANT SELECT ON %s TO conductor_reader', (SELECT inhrelid::regclass"
        " FROM pg_inherits WHERE inhparent = 'test_results'::regclass ORDER BY 1 LIMIT 1)); END$$",
        f"rows of {OTHER}",
    ),
    "deletion": ("GRANT DELETE ON public.quality_scores TO conductor_reader", "public.quality_scores"),
    "truncation": ("GRANT TRUNCATE ON inbox TO conductor_reader", "public.inbox"),
    "a view as its owner sees it": (
        "CREATE VIEW conductor_tenant.news AS SELECT * FROM test_runs; GRANT SELECT ON conductor_tenant.news TO PUBLIC",
        "conductor_tenant.news",
    ),
    "a view that a condition looks behind": (
        "CREATE VIEW conductor_tenant.news AS SELECT * FROM test_runs"
        " WHERE tenant_id = current_setting('conductor.tenant_id', true);"
        " GRANT SELECT ON conductor_tenant.news TO conductor_reader",
        "overhears",
    ),
    "a copy under another name": (
        "CREATE MATERIALIZED VIEW copied AS SELECT tenant_id AS whose, build_id FROM builds;"
        " GRANT SELECT ON copied TO conductor_reader",
        "public.copied",
    ),
    "a new table": (
        "CREATE TABLE news AS SELECT tenant_id, display_name FROM tenants;"
        " GRANT SELECT, INSERT ON news TO conductor_reader",
        "public.news",
    ),
    "a function that tells": (
        "CREATE FUNCTION told() RETURNS SETOF builds LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM public.builds'",
        "told()",
    ),
    "a function that writes": (
        "CREATE FUNCTION forget(tenant text) RETURNS void LANGUAGE sql SECURITY DEFINER"
        " AS 'DELETE FROM public.usage_reports WHERE tenant_id = tenant'",
        "forget(text)",
    ),
    "settings that anybody writes": (
        "GRANT UPDATE ON materialization_cursors TO conductor_reader",
        "public.materialization_cursors",
    ),
}


@pytest.mark.parametrize("plant", _PLANTED)
def test_a_planted_hole_is_found(database: psycopg.Connection[Any], plant: str) -> None:
    """The control: each kind of hole is told, by the name of what has it."""
    statements, named = _PLANTED[plant]
    database.execute(statements.encode())
    found = Intruder(database, READER_ROLE).crossings()
    assert any(named in one for one in found), found
