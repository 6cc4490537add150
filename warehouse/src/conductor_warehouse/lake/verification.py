"""Reads a lake again and checks all that its catalogue says."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conductor_warehouse.lake import layout
from conductor_warehouse.lake.catalogue import Lake
from conductor_warehouse.lake.errors import LakeError, VersionNotFound
from conductor_warehouse.lake.records import DataFile, Entry, FileList
from conductor_warehouse.lake.tables import describe, schema_version


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    subject: str
    """The key of a file, or a version."""
    problem: str | None
    """What is wrong; None if nothing is."""


def verify(
    lake: Lake,
    versions: Collection[str] | None = None,
    *,
    tables: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
) -> Iterator[Finding]:
    """Read the pointer, the versions, their lists of files, and every file: digest, size, rows, schema, tenant.

    Args:
        lake: to check.
        versions: digests; None: the version in force.
        tables: files of these only.
        tenants: files of these only.

    Raises:
        VersionNotFound: nothing was exported yet.
        LakeUnavailable: the storage does not answer.
    """
    numbers = lake.generations()
    if not numbers:
        raise VersionNotFound("nothing was exported to this lake yet: run `conductor lake export`")
    for number, key in numbers.items():
        try:
            digest = lake.generation(number).version
            if number == max(numbers):
                lake.version(digest)
            yield Finding(key, None)
        except LakeError as error:
            yield Finding(key, str(error))
    generation = lake.current()[1]
    if versions is None:
        versions = [generation.version] if generation else []
    checked: set[str] = set()
    for digest in versions:
        try:
            _, version = lake.version(digest)
        except LakeError as error:
            yield Finding(f"version {digest[:16]}", str(error))
            continue
        yield Finding(f"version {digest[:16]}", None)
        for entry in version.entries:
            if (tables is not None and entry.table not in tables) or (
                tenants is not None and entry.tenant_id not in tenants
            ):
                continue
            yield from _entry(lake, entry, version.schemas, checked)


def _entry(lake: Lake, entry: Entry, schemas: object, checked: set[str]) -> Iterator[Finding]:
    key = layout.files_key(entry.files_digest)
    try:
        files = lake.files(entry)
    except LakeError as error:
        yield Finding(key, f"files of {entry.table}, tenant {entry.tenant_id!r}: {error}")
        return
    same = Entry.of(files, entry.files_digest, entry.since) == entry
    yield Finding(key, None if same else "the version tells other numbers than the list of files")
    for file in files.files:
        if file.digest not in checked:
            checked.add(file.digest)
            yield Finding(file.key, _problem(lake, files, file))


def _problem(lake: Lake, files: FileList, file: DataFile) -> str | None:
    try:
        content = lake.content(file)
        source = pq.ParquetFile(pa.BufferReader(content))
        schema, rows = source.schema_arrow, source.metadata.num_rows
        tenants = set(pc.unique(source.read(columns=["tenant_id"]).column(0)).to_pylist())
        day = layout.parse_data_key(file.key)[2]
    except (LakeError, ValueError, pa.ArrowException, OSError, KeyError) as error:
        return str(error)
    found = {
        f"it has {len(content)} bytes, not {file.size_bytes}": len(content) != file.size_bytes,
        f"it has {rows} rows, not {file.rows}": rows != file.rows,
        f"its columns are not of schema version {file.schema_version}: {describe(schema)}": (
            schema_version(schema) != file.schema_version
        ),
        f"it has rows of other tenants than {files.tenant_id!r}": tenants - {files.tenant_id} != set(),
        f"it is not of {file.day}": day != file.day,
    }
    problems = [problem for problem, there in found.items() if there]
    return "; ".join(problems) or None
