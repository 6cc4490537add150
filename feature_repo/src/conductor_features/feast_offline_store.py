"""Feast's PostgreSQL offline store with a point-in-time join made for logs.

The stock join (Feast 0.67) pairs each asked row with every earlier log row of its entity before it picks one: 100
asked rows took 7 s, 400 did not end in 100 s. It tells asked rows apart by their join keys strung together, so that
tenant "a" with repository "bc" and tenant "ab" with repository "c" get each other's rows, and it answers with several
rows where log rows share both times. Here each asked row looks up the one log row that was the latest then, by index.

Imports Feast, which takes seconds: only tools and training import this module.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
    PostgreSQLRetrievalJob,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import FeatureViewQueryContext
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.utils.postgres.connection_utils import _get_conn
from psycopg import sql

_NAME: Literal["conductor_features.feast_offline_store.LogPostgreSQLOfflineStore"] = (
    "conductor_features.feast_offline_store.LogPostgreSQLOfflineStore"
)
_ROW = "__row"
_TIME = "__asked_time"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class LogPostgreSQLOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """Configuration of :class:`LogPostgreSQLOfflineStore`: that of Feast's own PostgreSQL store."""

    type: Literal["conductor_features.feast_offline_store.LogPostgreSQLOfflineStore"] = _NAME  # type: ignore[assignment]


class LogPostgreSQLOfflineStore(PostgreSQLOfflineStore):
    """Reads feature logs: of an entity's rows the latest event time counts, then ``created``, then ``log_id``."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Job that adds, to each row of ``entity_df``, the features as of its time (that moment included).

        Keeps the order, columns and types of ``entity_df``. Times without a zone are UTC; times are cut to
        microseconds. With ``filter_by_created_timestamp`` the features are those that were known at that time (*as
        served*), else those that are known now (*as corrected* by late events). An ``entity_df`` that is a query, or
        none, takes Feast's own way.
        """
        if not isinstance(entity_df, pd.DataFrame):
            return PostgreSQLOfflineStore.get_historical_features(
                config,
                feature_views,
                feature_refs,
                entity_df,
                registry,
                project,
                full_feature_names,
                filter_by_created_timestamp,
                **kwargs,
            )
        schema = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
        time_column = offline_utils.infer_event_timestamp_from_entity_df(schema)
        join_keys = offline_utils.get_expected_join_keys(project, feature_views, registry)
        offline_utils.assert_expected_columns_in_entity_df(schema, join_keys, time_column)
        times = pd.to_datetime(entity_df[time_column], utc=True).dt.floor("us")
        asked_range = (times.min().to_pydatetime(), times.max().to_pydatetime()) if len(times) else (_NEVER, _NEVER)
        views = offline_utils.get_feature_view_query_context(
            feature_refs, feature_views, registry, project, asked_range
        )
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=sorted(join_keys),
            min_event_timestamp=asked_range[0],
            max_event_timestamp=asked_range[1],
        )
        return _AsOfJob(
            config,
            entity_df,
            times,
            sorted(join_keys),
            views,
            full_feature_names,
            metadata,
            as_served=filter_by_created_timestamp,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Job for materialisation: each entity's latest row between the two times, both included."""
        keys = sql.SQL(", ").join(map(sql.Identifier, join_key_columns))
        times = [column for column in (timestamp_field, created_timestamp_column) if column]
        query = sql.SQL(
            "SELECT DISTINCT ON ({keys}) {columns} FROM {table} AS log WHERE log.{time} BETWEEN {start} AND {end} "
            "ORDER BY {keys}, {order}"
        ).format(
            keys=keys,
            columns=sql.SQL(", ").join(map(sql.Identifier, [*join_key_columns, *feature_name_columns, *times])),
            table=sql.SQL(data_source.get_table_query_string()),
            time=sql.Identifier(timestamp_field),
            start=sql.Literal(start_date),
            end=sql.Literal(end_date),
            order=_latest_first("log", timestamp_field, created_timestamp_column),
        )
        return PostgreSQLRetrievalJob(query=query.as_string(), config=config, full_feature_names=False)


class _AsOfJob(RetrievalJob):
    """Uploads the asked entities to a temporary table and looks up one log row per view for each."""

    def __init__(
        self,
        config: RepoConfig,
        frame: pd.DataFrame,
        times: pd.Series[pd.Timestamp],
        join_keys: list[str],
        views: list[FeatureViewQueryContext],
        full_feature_names: bool,
        metadata: RetrievalMetadata,
        *,
        as_served: bool,
    ) -> None:
        self._config = config
        self._frame = frame
        self._times = times
        self._join_keys = join_keys
        self._views = views
        self._full_feature_names = full_feature_names
        self._metadata = metadata
        self._as_served = as_served

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named with their view."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None: features are computed before they are logged."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for."""
        return self._metadata

    def to_sql(self) -> str:
        """The query, on the temporary table of asked entities."""
        return self._query().as_string()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        with _get_conn(self._config.offline_store) as connection:
            self._upload(connection)
            with connection.cursor(binary=True) as cursor:
                cursor.execute(self._query())
                found = cursor.fetchall()
        names = [
            f"{view.name}__{feature}" if self._full_feature_names else feature
            for view in self._views
            for feature in view.features
        ]
        features = np.array(found, dtype=np.float64).reshape(len(self._frame), len(names))  # null becomes NaN
        answer = pd.DataFrame(features, columns=names)
        return pd.concat([self._frame.reset_index(drop=True), answer], axis=1)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.Table.from_pandas(self._to_df_internal(timeout), preserve_index=False)

    def _upload(self, connection: psycopg.Connection[Any]) -> None:
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(key)) for key in self._join_keys)
        connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE asked ({} bigint, {} timestamptz, {}) ON COMMIT DROP").format(
                sql.Identifier(_ROW), sql.Identifier(_TIME), columns
            )
        )
        rows = zip(
            range(len(self._frame)),
            (moment.to_pydatetime() for moment in self._times),
            *(self._frame[key].astype(str) for key in self._join_keys),
            strict=True,
        )
        with connection.cursor() as cursor, cursor.copy("COPY asked FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        connection.execute("ANALYZE asked")
        if self._as_served:
            for number, view in enumerate(self._views):
                for statement in _visible_table(f"visible{number}", view, max(self._times, default=_NEVER)):
                    connection.execute(statement)

    def _query(self) -> sql.Composed:
        selected = sql.SQL(", ").join(
            sql.Identifier(f"v{number}", feature)
            for number, view in enumerate(self._views)
            for feature in view.features
        )
        joins = sql.SQL(" ").join(
            _as_of(f"v{number}", view, f"visible{number}" if self._as_served else None)
            for number, view in enumerate(self._views)
        )
        return sql.SQL("SELECT {} FROM asked {} ORDER BY asked.{}").format(selected, joins, sql.Identifier(_ROW))


def _visible_table(name: str, view: FeatureViewQueryContext, last: datetime) -> list[sql.Composed]:
    """Statements that make a table of the log's rows with the moment from which each was served.

    A row was served from when it was known, and of its moment, until a later row was: one that became known after a row
    of a later moment never was. So the latest visible row is found by index, however late rows became known.
    """
    keys = sql.SQL(", ").join(map(sql.Identifier, view.entities))
    table = sql.Identifier(name)
    time = sql.Identifier(view.timestamp_field)
    created = sql.Identifier(view.created_timestamp_column or view.timestamp_field)
    return [
        sql.SQL(
            """
            CREATE TEMPORARY TABLE {table} ON COMMIT DROP AS
            SELECT * FROM (
              SELECT *, max(place) OVER (
                PARTITION BY {keys} ORDER BY visible_time, place ROWS UNBOUNDED PRECEDING) AS highest
              FROM (
                SELECT *, greatest({time}, {created}) AS visible_time, row_number() OVER (
                  PARTITION BY {keys} ORDER BY {time}, {created}, log_id) AS place
                FROM {log} AS log
                WHERE tenant_id IN (SELECT tenant_id FROM asked) AND {time} <= {last}
              ) AS placed
            ) AS ranked
            WHERE place = highest
            """
        ).format(table=table, keys=keys, time=time, created=created, log=sql.SQL(view.table_subquery), last=last),
        sql.SQL("CREATE INDEX ON {} ({}, visible_time, place)").format(table, keys),
        sql.SQL("ANALYZE {}").format(table),
    ]


def _as_of(alias: str, view: FeatureViewQueryContext, visible: str | None) -> sql.Composed:
    """Join of the latest row of one view at the asked time, and no older than the view allows.

    ``visible`` names the table of :func:`_visible_table`; None is for the rows that are known now.
    """
    log: sql.Composable
    if visible is None:
        log, moment = sql.SQL(view.table_subquery), sql.Identifier(view.timestamp_field)
        latest_first = _latest_first("log", view.timestamp_field, view.created_timestamp_column)
    else:
        log, moment = sql.Identifier(visible), sql.Identifier("visible_time")
        latest_first = sql.Composed([sql.SQL("log.visible_time DESC, log.place DESC")])
    conditions = [
        *(sql.SQL("log.{0} = asked.{0}").format(sql.Identifier(key)) for key in view.entities),
        sql.SQL("log.{} <= asked.{}").format(moment, sql.Identifier(_TIME)),
    ]
    if view.ttl:
        conditions.append(
            sql.SQL("log.{} >= asked.{} - make_interval(secs => {})").format(
                sql.Identifier(view.timestamp_field), sql.Identifier(_TIME), sql.Literal(view.ttl)
            )
        )
    return sql.SQL("LEFT JOIN LATERAL (SELECT {} FROM {} AS log WHERE {} ORDER BY {} LIMIT 1) AS {} ON true").format(
        sql.SQL(", ").join(sql.Identifier("log", feature) for feature in view.features),
        log,
        sql.SQL(" AND ").join(conditions),
        latest_first,
        sql.Identifier(alias),
    )


def _latest_first(alias: str, timestamp_field: str, created_timestamp_column: str | None) -> sql.Composed:
    columns = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else []), "log_id"]
    return sql.SQL(", ").join(sql.SQL("{} DESC").format(sql.Identifier(alias, column)) for column in columns)
