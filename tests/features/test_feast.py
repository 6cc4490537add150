"""Feast on real PostgreSQL and Redis: point-in-time joins, materialisation, push, and one layout with our reader."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest
import redis
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from typer.testing import CliRunner

from conductor_features.cli import commands
from conductor_features.feast_definitions import BUILD_DURATION
from conductor_features.feast_store import apply, open_store
from conductor_features.keys import entity_key, parse_key
from conductor_features.reader import OnlineReader
from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import BUILD_VIEWS, PIPELINE_BUILDS, REPOSITORY_BUILDS, TENANT_LOAD, VIEWS, View
from conductor_features.writer import write_rows

T0 = datetime(2026, 11, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LogRow = tuple[tuple[str, ...], datetime, datetime, Sequence[float | None]]
"""Entity, event time, created, values."""


@pytest.fixture
def store(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[FeatureStore]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        # Whatever zone a session has, times are moments.
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET timezone = 'Asia/Kolkata'").format(name))
        for view in VIEWS.values():
            create_log(connection, view)
    store = open_store(database_url, redis_url, tmp_path / "feast" / "registry.db")
    apply(store)
    yield store


def create_log(connection: psycopg.Connection, view: View) -> None:
    columns = [f'"{key}" text NOT NULL' for key in view.entity]
    columns += ["event_timestamp timestamptz NOT NULL", "created timestamptz NOT NULL DEFAULT now()"]
    columns += [f'"{name}" double precision' for name in view.field_names]
    connection.execute(
        f"CREATE TABLE {view.log_table} (log_id bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), "
        f"{', '.join(columns)})"
    )


def log(database_url: str, view: View, rows: Sequence[LogRow]) -> None:
    names = [*view.entity, "event_timestamp", "created", *view.field_names]
    insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(view.log_table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join([sql.Placeholder()] * len(names)),
    )
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(insert, [(*entity, event, created, *values) for entity, event, created, values in rows])


def numbers(view: View, first: float) -> list[float | None]:
    return [first + index for index in range(len(view.fields))]


def historical(
    store: FeatureStore, view: View, asked: Sequence[tuple[tuple[str, ...], datetime]], **how: bool
) -> pd.DataFrame:
    frame = pd.DataFrame([entity for entity, _ in asked], columns=list(view.entity))
    frame["event_timestamp"] = pd.to_datetime([moment for _, moment in asked], utc=True)
    features = [f"{view.key}:{name}" for name in view.field_names]
    answer = store.get_historical_features(frame, features, full_feature_names=True, **how).to_df()
    pd.testing.assert_frame_equal(answer[list(frame.columns)], frame)
    return answer[[f"{view.key}__{name}" for name in view.field_names]]


def online(store: FeatureStore, view: View, entity: tuple[str, ...]) -> list[float | None]:
    answer = store.get_online_features(
        features=[f"{view.key}:{name}" for name in view.field_names],
        entity_rows=[dict(zip(view.entity, entity, strict=True))],
    ).to_dict()
    return [answer[name][0] for name in view.field_names]


async def read(redis_url: str, view: View, entity: tuple[str, ...]) -> FeatureRow | Missing:
    async with OnlineReader(redis_url, timeout_seconds=2.0) as reader:
        return (await reader.read([(view, entity)]))[0]


def test_definitions_are_applied_once_and_tell_owner_and_lineage(store: FeatureStore) -> None:
    apply(store)
    views = {view.name: view for view in store.list_feature_views()}
    assert set(views) == set(VIEWS)
    for key, view in VIEWS.items():
        assert views[key].ttl == view.maximum_age
        assert views[key].tags["owner"] == view.owner and views[key].tags["lineage"] == ", ".join(view.lineage)
        assert [feature.name for feature in views[key].features] == list(view.field_names)
    assert len(store.get_feature_service(BUILD_DURATION).feature_view_projections) == len(BUILD_VIEWS)


async def test_materialised_rows_are_what_feast_and_the_server_read(
    store: FeatureStore, database_url: str, redis_url: str
) -> None:
    entity = ("acme", "app", "ci")
    latest = [None if index == 2 else math.pi * index for index in range(len(PIPELINE_BUILDS.fields))]
    late = T0 + timedelta(hours=2, microseconds=7)
    log(
        database_url,
        PIPELINE_BUILDS,
        [
            (entity, T0, T0, numbers(PIPELINE_BUILDS, 0)),
            (entity, late, T0, numbers(PIPELINE_BUILDS, 1)),
            (entity, late, T0 + timedelta(days=1), numbers(PIPELINE_BUILDS, 2)),
            (entity, late, T0 + timedelta(days=1), latest),
            (entity, T0 + timedelta(hours=1), T0 + timedelta(days=2), numbers(PIPELINE_BUILDS, 4)),
            (("team-acme", "app", "ci"), T0, T0, numbers(PIPELINE_BUILDS, 5)),
        ],
    )
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1))
    assert online(store, PIPELINE_BUILDS, entity) == latest
    assert online(store, PIPELINE_BUILDS, ("team-acme", "app", "ci"))[0] == 5.0
    assert online(store, PIPELINE_BUILDS, ("acme", "app", "other")) == [None] * len(latest)
    row = await read(redis_url, PIPELINE_BUILDS, entity)
    assert isinstance(row, FeatureRow) and row.event_time == late
    np.testing.assert_array_equal(row.values, np.array(latest, dtype=np.float64))


async def test_a_push_is_written_and_an_older_one_is_not(store: FeatureStore, redis_url: str) -> None:
    def push(moment: datetime, value: float) -> None:
        frame = pd.DataFrame({"tenant_id": ["acme"], "event_timestamp": [moment], "created": [moment]})
        frame[list(TENANT_LOAD.field_names)] = [value, math.nan]
        store.write_to_online_store(TENANT_LOAD.key, frame)

    push(T0, 1.0)
    push(T0 + timedelta(seconds=1), 2.0)
    push(T0, 3.0)
    assert online(store, TENANT_LOAD, ("acme",)) == [2.0, None]
    row = await read(redis_url, TENANT_LOAD, ("acme",))
    assert isinstance(row, FeatureRow) and row.event_time == T0 + timedelta(seconds=1)


def test_feast_reads_what_the_tailing_writer_wrote_and_refuses_what_decayed(
    store: FeatureStore, redis_url: str
) -> None:
    client = redis.Redis.from_url(redis_url)
    write_rows(client, TENANT_LOAD, [(("acme",), T0, [4.0, math.nan])])
    assert online(store, TENANT_LOAD, ("acme",)) == [4.0, None]
    client.setrange(entity_key(TENANT_LOAD.key, ("acme",)), 45, b"\xff")
    assert online(store, TENANT_LOAD, ("acme",)) == [None, None]


def test_a_view_that_is_gone_takes_its_rows_along_and_no_others(
    store: FeatureStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = redis.Redis.from_url(redis_url)
    client.set("somebody-else", "1")
    client.set("cf1:somebody-else", "1")
    write_rows(client, TENANT_LOAD, [((f"tenant-{n}",), T0, [1.0, 2.0]) for n in range(2_500)])
    write_rows(client, REPOSITORY_BUILDS, [(("acme", TENANT_LOAD.key), T0, numbers(REPOSITORY_BUILDS, 0))])
    kept = {key: view for key, view in VIEWS.items() if view is not TENANT_LOAD}
    monkeypatch.setattr("conductor_features.feast_definitions.VIEWS", kept)
    apply(store)
    assert {view.name for view in store.list_feature_views()} == set(kept)
    left = set(client.keys())  # a scan may tell a key twice
    assert left == {
        b"somebody-else",
        b"cf1:somebody-else",
        entity_key(REPOSITORY_BUILDS.key, ("acme", TENANT_LOAD.key)),
    }
    store.teardown()
    assert [key for key in client.scan_iter() if b"builds" in key] == []


def test_a_training_row_holds_what_was_known_at_its_time(store: FeatureStore, database_url: str) -> None:
    entity = ("acme", "app")
    later = T0 + timedelta(hours=1)
    same = T0 + timedelta(days=1)
    log(
        database_url,
        REPOSITORY_BUILDS,
        [
            (entity, T0, same, numbers(REPOSITORY_BUILDS, 10)),
            (entity, later, same, [math.nan, None, *numbers(REPOSITORY_BUILDS, 20)[2:]]),
            (entity, later, T0, numbers(REPOSITORY_BUILDS, 30)),
            # Strung together, these join keys read like the others'.
            (("acm", "eapp"), T0, same, numbers(REPOSITORY_BUILDS, 40)),
        ],
    )
    moments = [T0 - MICROSECOND, T0, later - MICROSECOND, later, T0 + REPOSITORY_BUILDS.maximum_age * 2, later]
    asked: list[tuple[tuple[str, ...], datetime]] = [(entity, moment) for moment in moments]
    asked.append((("acm", "eapp"), later))
    answer = historical(store, REPOSITORY_BUILDS, asked)
    assert answer.iloc[:, 2].tolist() == pytest.approx([math.nan, 12, 12, 22, math.nan, 22, 42], nan_ok=True)
    assert answer.iloc[3, :2].isna().all()


def test_the_service_joins_all_views_and_keeps_what_was_asked(store: FeatureStore, database_url: str) -> None:
    values = {"tenant_id": "acme", "repository": "app", "pipeline": "ci", "branch": "main"}
    for number, view in enumerate(BUILD_VIEWS):
        log(database_url, view, [(tuple(values[key] for key in view.entity), T0, T0, numbers(view, 100.0 * number))])
    frame = pd.DataFrame(
        {**values, "event_timestamp": [T0 + MICROSECOND, T0 - MICROSECOND], "context": [b"\x00\xff", None]},
        index=[7, 3],
    )
    service = store.get_feature_service(BUILD_DURATION)
    answer = store.get_historical_features(frame, service, full_feature_names=True).to_df()
    assert answer["context"].tolist() == [b"\x00\xff", None]
    for number, view in enumerate(BUILD_VIEWS):
        assert answer[f"{view.key}__{view.field_names[0]}"].tolist() == pytest.approx(
            [100.0 * number, math.nan], nan_ok=True
        )
    empty = store.get_historical_features(frame.iloc[:0], service, full_feature_names=True).to_df()
    assert len(empty) == 0 and set(empty.columns) == set(answer.columns)


ENTITIES = st.sampled_from([("a", "bc"), ("ab", "c"), ("a", "b"), ("A", "bc")])
TICKS = st.integers(0, 8)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(st.tuples(ENTITIES, TICKS, st.integers(0, 2), st.integers(0, 3)), max_size=25),
    asked=st.lists(st.tuples(ENTITIES, TICKS, st.integers(-1, 1)), min_size=1, max_size=15),
)
def test_random_histories_agree_with_brute_force(
    store: FeatureStore,
    database_url: str,
    redis_url: str,
    history: list[tuple[tuple[str, str], int, int, int]],
    asked: list[tuple[tuple[str, str], int, int]],
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {REPOSITORY_BUILDS.log_table}")  # type: ignore[arg-type]
    redis.Redis.from_url(redis_url).flushdb()
    step = REPOSITORY_BUILDS.maximum_age / 4  # so that some rows are too old
    rows = [
        (entity, T0 + tick * step, T0 + (tick + late) * step + created * MICROSECOND)
        for entity, tick, created, late in history
    ]
    log(
        database_url,
        REPOSITORY_BUILDS,
        [(entity, event, created, numbers(REPOSITORY_BUILDS, n)) for n, (entity, event, created) in enumerate(rows)],
    )

    def known(entity: tuple[str, str], since: datetime, until: datetime, by: datetime | None = None) -> float:
        fitting = [
            (event, created, n)
            for n, (one, event, created) in enumerate(rows)
            if one == entity and since <= event <= until and (by is None or created <= by)
        ]
        return float(max(fitting)[2]) if fitting else math.nan

    questions = [(entity, T0 + tick * step + offset * MICROSECOND) for entity, tick, offset in asked]
    expected = [known(entity, moment - REPOSITORY_BUILDS.maximum_age, moment) for entity, moment in questions]
    answer = historical(store, REPOSITORY_BUILDS, questions)
    np.testing.assert_array_equal(answer.iloc[:, 0].to_numpy(), expected)
    served = [known(entity, moment - REPOSITORY_BUILDS.maximum_age, moment, by=moment) for entity, moment in questions]
    answer = historical(store, REPOSITORY_BUILDS, questions, filter_by_created_timestamp=True)
    np.testing.assert_array_equal(answer.iloc[:, 0].to_numpy(), served)

    middle = T0 + 4 * step
    store.materialize(T0, middle, feature_views=[REPOSITORY_BUILDS.key])
    for entity in {entity for entity, *_ in history}:
        value = online(store, REPOSITORY_BUILDS, entity)[0]
        np.testing.assert_equal(math.nan if value is None else value, known(entity, T0, middle))


def test_the_commands_apply_materialize_and_get(
    store: FeatureStore, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_DATABASE_URL", database_url)
    monkeypatch.setenv("CONDUCTOR_REDIS_URL", redis_url)
    monkeypatch.setenv("CONDUCTOR_FEAST_REGISTRY", str(tmp_path / "commands.db"))
    now = datetime.now(UTC)
    log(database_url, TENANT_LOAD, [(("acme",), now - timedelta(minutes=1), now, [3.0, None])])

    def run(*arguments: str) -> object:
        result = CliRunner().invoke(commands, [*arguments, "-o", "json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert run("apply") == {"views": list(VIEWS), "registry": str(tmp_path / "commands.db")}
    materialized = run("materialize")
    assert isinstance(materialized, list) and [one["view"] for one in materialized] == list(VIEWS)
    row = run("get", TENANT_LOAD.key, "--entity", "tenant_id=acme")
    assert isinstance(row, dict)
    assert (row["tenant_id"], row["queued_count_1h"], row["running_count"]) == ("acme", 3.0, None)
    assert [parse_key(key) for key in redis.Redis.from_url(redis_url).scan_iter()] == [(TENANT_LOAD.key, ("acme",))]
    # A row that is too old to be served is only written when everything is.
    old = now - 3 * 365 * timedelta(days=1)
    log(database_url, REPOSITORY_BUILDS, [(("acme", "shop"), old, old, [1.0, 2.0, 3.0, 4.0, 5.0])])
    run("materialize")
    assert len(redis.Redis.from_url(redis_url).keys()) == 1
    redis.Redis.from_url(redis_url).flushall()
    for _ in range(2):
        run("materialize", "--rebuild")
        assert {parse_key(key) for key in redis.Redis.from_url(redis_url).scan_iter()} == {
            (TENANT_LOAD.key, ("acme",)),
            (REPOSITORY_BUILDS.key, ("acme", "shop")),
        }
