"""Turns the rows of a table and tenant into Parquet files, one or more for each day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conductor_warehouse.lake.layout import data_key
from conductor_warehouse.lake.records import DataFile, digest_of
from conductor_warehouse.lake.source import DAY
from conductor_warehouse.lake.tables import schema_version

MOST_ROWS = 250_000
"""Rows of one file: what is held in memory at a time, and what a reader must at least read."""
_EPOCH = date(1970, 1, 1)


def parquet_files(
    table: str, tenant_id: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[tuple[DataFile, bytes]]:
    """Files with their contents. The same rows in the same order always give the same files.

    Args:
        table: of the lake.
        tenant_id: whose rows they are.
        schema: of the files.
        batches: columns of ``schema`` and :data:`DAY`, with all rows of a day together.
    """
    version = schema_version(schema)

    def file(day: date, number: int, parts: list[pa.RecordBatch]) -> tuple[DataFile, bytes]:
        content = _parquet(pa.Table.from_batches(parts, schema))
        digest = digest_of(content)
        key = data_key(table, tenant_id, day, number, digest)
        return DataFile(key, day, sum(map(len, parts)), len(content), digest, version), content

    current, number, kept = date.min, 0, list[pa.RecordBatch]()
    for day, rows in _by_day(batches):
        if day != current:
            if kept:
                yield file(current, number, kept)
            current, number, kept = day, 0, []
        while len(rows):
            room = MOST_ROWS - sum(map(len, kept))
            kept.append(rows.slice(0, room))
            rows = rows.slice(room)  # noqa: PLW2901 - what is left of them
            if len(rows):
                yield file(current, number, kept)
                number, kept = number + 1, []
    if kept:
        yield file(current, number, kept)


def _by_day(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[date, pa.RecordBatch]]:
    for batch in batches:
        if not len(batch):
            continue
        days = batch.column(DAY).cast(pa.int32()).to_numpy()
        rows = batch.drop_columns([DAY])
        begins = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
        for begin, end in zip(begins, np.r_[begins[1:], len(days)], strict=True):
            yield _EPOCH + timedelta(days=int(days[begin])), rows.slice(begin, end - begin)


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    words = [field.name for field in rows.schema if field.type in (pa.string(), pa.timestamp("us", tz="UTC"))]
    pq.write_table(
        rows,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=words,
        write_statistics=words,
        row_group_size=MOST_ROWS,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content
