"""Test runs as the warehouse keeps them, or a version of its lake: equal to those of the events that they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime

import adbc_driver_manager
import adbc_driver_postgresql.dbapi  # type: ignore[import-untyped]
import numpy as np
import polars as pl
import psycopg
import pyarrow as pa
from psycopg import sql

from conductor_training.lake_frame import read_rows
from conductor_training.test_failure.frame import Run
from conductor_warehouse.lake import Lake, LakeVersion

Columns = Mapping[str, pl.DataType | type[pl.DataType]]
"""Names, and what they are read as."""
_RUNS: Columns = {
    "run_id": pl.String,
    "repository": pl.String,
    "started_time": pl.Datetime("us", "UTC"),
    "completed_time": pl.Datetime("us", "UTC"),
    "changed_paths": pl.List(pl.String),
}
_RESULTS: Columns = {
    "run_id": pl.String,
    "completed_time": pl.Datetime("us", "UTC"),
    "result_number": pl.Int32,
    "test_id": pl.String,
    "outcome": pl.String,
    "duration": pl.Float64,
}
_KEY = ("run_id", "completed_time")
_OUTCOMES = {"PASSED": 0.0, "FAILED": 1.0, "ERROR": 1.0, "SKIPPED": 2.0}
_ONE_SNAPSHOT = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL statement_timeout = 0",
)
_TENANTS = 'SELECT DISTINCT tenant_id COLLATE "C" AS tenant_id FROM test_runs ORDER BY 1'


def warehouse_runs(
    database_url: str, tenant_id: str | None = None, until: datetime | None = None
) -> Mapping[str, Sequence[Run]]:
    """Runs of a tenant (or of all) that ended before ``until``, by tenant; all of one moment. Raises psycopg.Error."""
    try:
        with (
            closing(adbc_driver_postgresql.dbapi.connect(database_url, autocommit=True)) as connection,
            closing(connection.cursor()) as cursor,
        ):
            for statement in _ONE_SNAPSHOT:
                cursor.execute(statement)

            def read(statement: str) -> pa.Table:
                cursor.execute(statement)
                return cursor.fetch_arrow_table()

            def rows(table: str, schema: Columns, tenant: str) -> pl.DataFrame:
                return _typed(read(_select(table, schema, tenant, until)), schema)

            tenants = [tenant_id] if tenant_id is not None else read(_TENANTS)["tenant_id"].to_pylist()
            return {
                tenant: runs
                for tenant in tenants
                if (runs := _runs(tenant, rows("test_runs", _RUNS, tenant), rows("test_results", _RESULTS, tenant)))
            }
    except adbc_driver_manager.Error as error:
        raise psycopg.OperationalError(str(error)) from error


def lake_runs(
    lake: Lake, version: LakeVersion, tenant_id: str | None = None, until: datetime | None = None
) -> Mapping[str, Sequence[Run]]:
    """The same of one version of a lake.

    Raises:
        LakeCorrupt: a file is absent or damaged.
        LakeUnavailable: the storage does not answer.
    """
    found = {}
    for tenant in version.tenants if tenant_id is None else [tenant_id]:
        runs = read_rows(lake, version, "test_runs", tenant, tuple(_RUNS), until)
        if runs is None:
            continue
        results = read_rows(lake, version, "test_results", tenant, tuple(_RESULTS), until)
        if until is not None:
            runs = runs.filter(pl.col("completed_time") < until)
        if len(runs):
            found[tenant] = _runs(tenant, runs, pl.DataFrame(schema=_RESULTS) if results is None else results)
    return found


def _select(table: str, columns: Columns, tenant_id: str, until: datetime | None) -> str:
    statement = sql.SQL("SELECT {} FROM {} WHERE tenant_id = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table), sql.Literal(tenant_id)
    )
    if until is not None:
        statement += sql.SQL(" AND completed_time < {}").format(sql.Literal(until))
    return statement.as_string()


def _typed(table: pa.Table, schema: Columns) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - of a table, not of one column
    return frame.cast(pl.Schema(schema))


def _runs(tenant_id: str, runs: pl.DataFrame, results: pl.DataFrame) -> list[Run]:
    """Runs in the order of their ids, each with its results in theirs."""
    runs = runs.sort("run_id").with_row_index("number")
    results = results.join(runs.select("number", *_KEY), on=_KEY).sort("number", "result_number")
    begins = np.searchsorted(results["number"].to_numpy(), np.arange(len(runs) + 1))
    # A test's name is made once, however often the test ran.
    names = results["test_id"].to_arrow().dictionary_encode()
    tests = np.array(names.dictionary.to_pylist(), dtype=object)[names.indices.to_numpy()]
    outcomes = results["outcome"].replace_strict(_OUTCOMES, return_dtype=pl.Float64).to_numpy()
    durations = results["duration"].fill_null(float("nan")).to_numpy()
    completed = runs["completed_time"].dt.epoch("us").to_numpy() / 1e6
    started = runs["started_time"].fill_null(runs["completed_time"]).dt.epoch("us").to_numpy() / 1e6
    return [
        Run(
            tenant_id=tenant_id,
            run_id=run_id,
            repository=repository,
            started=float(started[number]),
            completed=float(completed[number]),
            changed_paths=list(dict.fromkeys(changed_paths)),
            tests=tests[begins[number] : begins[number + 1]].tolist(),
            outcomes=outcomes[begins[number] : begins[number + 1]],
            durations=durations[begins[number] : begins[number + 1]],
        )
        for number, run_id, repository, changed_paths in runs.select(
            "number", "run_id", "repository", "changed_paths"
        ).iter_rows()
    ]
