"""What the lake's catalogue consists of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

from conductor_warehouse.lake.errors import LakeCorrupt

FORMAT = 1
"""Of the catalogue's files. A reader that finds a greater number is too old for the lake."""


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class DataFile:
    """A file of rows of one table, tenant and day."""

    key: str
    day: date
    rows: int
    size_bytes: int
    digest: str
    """SHA-256 in hexadecimal."""
    schema_version: str


@dataclass(frozen=True)
class FileList:
    """The files of one table and tenant, in the order of days; immutable, named by its digest."""

    table: str
    tenant_id: str
    files: tuple[DataFile, ...]

    def to_json(self) -> bytes:
        """Serialise for the lake."""
        return _dump(
            {
                "table": self.table,
                "tenant_id": self.tenant_id,
                "files": [
                    [file.key, file.day.isoformat(), file.rows, file.size_bytes, file.digest, file.schema_version]
                    for file in self.files
                ],
            }
        )

    @classmethod
    def from_json(cls, key: str, content: bytes) -> FileList:
        """Read what stands under ``key``. Raises LakeCorrupt."""
        with _reading(key):
            fields = _load(content)
            files = tuple(
                DataFile(path, date.fromisoformat(day), int(rows), int(size), digest, schema)
                for path, day, rows, size, digest, schema in fields["files"]
            )
            return cls(fields["table"], fields["tenant_id"], files)


@dataclass(frozen=True)
class Entry:
    """What a version holds of one table and tenant."""

    table: str
    tenant_id: str
    files_digest: str
    """Names the list of files."""
    files: int
    rows: int
    size_bytes: int
    first_day: date | None
    last_day: date | None
    schema_versions: tuple[str, ...]
    """Of its files; more than one where the table got columns in the course of time."""
    since: date | None = None
    """Earlier days were not asked for; None: the whole history."""

    @classmethod
    def of(cls, files: FileList, files_digest: str, since: date | None) -> Entry:
        """The entry that tells of a list of files."""
        days = [file.day for file in files.files]
        return cls(
            table=files.table,
            tenant_id=files.tenant_id,
            files_digest=files_digest,
            files=len(files.files),
            rows=sum(file.rows for file in files.files),
            size_bytes=sum(file.size_bytes for file in files.files),
            first_day=min(days, default=None),
            last_day=max(days, default=None),
            schema_versions=tuple(sorted({file.schema_version for file in files.files})),
            since=since,
        )

    def to_row(self) -> list[Any]:
        """As it stands in the version's file."""
        return [
            self.table,
            self.tenant_id,
            self.files_digest,
            self.files,
            self.rows,
            self.size_bytes,
            _day(self.first_day),
            _day(self.last_day),
            list(self.schema_versions),
            _day(self.since),
        ]

    @classmethod
    def from_row(cls, row: list[Any]) -> Entry:
        """Read a row. Raises ValueError or TypeError."""
        table, tenant_id, digest, files, rows, size, first, last, schemas, since = row
        return cls(
            table,
            tenant_id,
            digest,
            int(files),
            int(rows),
            int(size),
            _date(first),
            _date(last),
            tuple(schemas),
            _date(since),
        )


@dataclass(frozen=True)
class LakeVersion:
    """Everything that the lake held at one moment: an immutable list of files, named by its digest.

    It follows from the rows alone: the same rows give the same version, however many exports they came by.
    """

    entries: tuple[Entry, ...]
    schemas: Mapping[str, list[list[str]]] = field(default_factory=dict)
    """Names and types of columns by schema version."""

    def to_json(self) -> bytes:
        """Serialise for the lake."""
        return _dump(
            {
                "format": FORMAT,
                "schemas": dict(sorted(self.schemas.items())),
                "entries": [entry.to_row() for entry in self.entries],
            }
        )

    @property
    def digest(self) -> str:
        """The version's name: SHA-256 in hexadecimal."""
        return digest_of(self.to_json())

    @classmethod
    def from_json(cls, key: str, content: bytes) -> LakeVersion:
        """Read what stands under ``key``. Raises LakeCorrupt."""
        with _reading(key):
            fields = _load(content)
            return cls(tuple(Entry.from_row(row) for row in fields["entries"]), fields["schemas"])

    def entry(self, table: str, tenant_id: str) -> Entry | None:
        """What the version holds of one table and tenant."""
        return self.by_key.get((table, tenant_id))

    @cached_property
    def by_key(self) -> dict[tuple[str, str], Entry]:
        """Entries by table and tenant."""
        return {(entry.table, entry.tenant_id): entry for entry in self.entries}

    @property
    def tenants(self) -> list[str]:
        """Tenants, in order."""
        return sorted({entry.tenant_id for entry in self.entries})


@dataclass(frozen=True)
class Positions:
    """Up to which snapshot of the database (``pg_snapshot``) the lake holds everything; "" for nothing yet.

    One snapshot for all as a rule; exports of a table or tenant alone move that one only.
    """

    every: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def of_table(self, table: str) -> str:
        """For tenants of a table that have no position of their own."""
        return self.tables.get(table, self.every)

    def of(self, table: str, tenant_id: str) -> str:
        """For one table and tenant."""
        return self.parts.get((table, tenant_id), self.of_table(table))

    def moved(
        self, snapshot: str, tables: frozenset[str] | None, tenants: frozenset[str] | None, known: frozenset[str]
    ) -> Positions:
        """After an export of these tables and tenants (None: of all); ``known``: all tables that there are."""
        if tables is None and tenants is None:
            return Positions(snapshot)
        chosen = known if tables is None else tables
        if tenants is None:
            parts = {key: value for key, value in self.parts.items() if key[0] not in chosen}
            return Positions(self.every, {**self.tables, **dict.fromkeys(chosen, snapshot)}, parts)
        own = {(table, tenant): snapshot for table in chosen for tenant in tenants}
        return Positions(self.every, self.tables, {**self.parts, **own})

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "every": self.every,
            "tables": dict(sorted(self.tables.items())),
            "parts": [[*key, value] for key, value in sorted(self.parts.items())],
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Positions:
        """From JSON. Raises ValueError, TypeError or KeyError."""
        parts = {(table, tenant): value for table, tenant, value in fields["parts"]}
        return cls(fields["every"], dict(fields["tables"]), parts)


@dataclass(frozen=True)
class Generation:
    """Where the lake's pointer points, as one immutable file: an export adds the next generation."""

    number: int
    """Counts from 1; the highest readable one is in force."""
    version: str
    """Digest of the version."""
    exported_time: datetime
    source: str
    """The database that the positions are of."""
    positions: Positions

    def to_json(self) -> bytes:
        """Serialise for the lake."""
        return _dump(
            {
                "format": FORMAT,
                "generation": self.number,
                "version": self.version,
                "exported_time": self.exported_time.astimezone(UTC).isoformat(),
                "source": self.source,
                "positions": self.positions.to_fields(),
            }
        )

    @classmethod
    def from_json(cls, key: str, number: int, content: bytes) -> Generation:
        """Read what stands under ``key``. Raises LakeCorrupt if it is no generation, or another one."""
        with _reading(key):
            fields = _load(content)
            if fields["generation"] != number:
                raise ValueError(f"it holds generation {fields['generation']}")
            if len(fields["version"]) != 64:
                raise ValueError("it names no version")
            return cls(
                number,
                fields["version"],
                datetime.fromisoformat(fields["exported_time"]),
                fields["source"],
                Positions.from_fields(fields["positions"]),
            )


@dataclass(frozen=True)
class Progress:
    """What an export that has not ended has done, so that the next one need not do it again."""

    base: int
    """The generation that it began from."""
    source: str
    done: Mapping[tuple[str, str], tuple[Entry | None, str]]
    """By table and tenant: the new entry (None: nothing left), and the snapshot that it is of."""
    schemas: Mapping[str, list[list[str]]]

    def to_json(self) -> bytes:
        """Serialise for the lake."""
        done = [[*key, entry.to_row() if entry else None, at] for key, (entry, at) in sorted(self.done.items())]
        return _dump(
            {"format": FORMAT, "base": self.base, "source": self.source, "schemas": dict(self.schemas), "done": done}
        )

    @classmethod
    def from_json(cls, key: str, content: bytes) -> Progress:
        """Read what stands under ``key``. Raises LakeCorrupt."""
        with _reading(key):
            fields = _load(content)
            done = {
                (table, tenant): (Entry.from_row(row) if row else None, at) for table, tenant, row, at in fields["done"]
            }
            return cls(fields["base"], fields["source"], done, fields["schemas"])


class _reading:  # noqa: N801 - reads as a statement
    """Tells whatever goes wrong while a file is read as damage of that file."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ValueError | TypeError | KeyError | AttributeError):
            raise LakeCorrupt(f"{self._key} can't be read: {error!r}") from error


def _load(content: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(content)
    if fields.get("format", FORMAT) > FORMAT:
        raise ValueError(f"format {fields['format']} is of a later version of this program")
    return fields


def _dump(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()


def _day(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _date(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
