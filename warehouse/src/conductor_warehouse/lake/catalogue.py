"""The lake's catalogue: immutable versions, and a pointer that moves by creating its next generation.

Whoever reads takes the highest generation, the version that it names, the lists of files that the version names, and
the files that those name: each by the digest of the next, so nothing can change under a version. Whoever writes goes
the other way round and creates the next generation last, if it is absent; a writer that dies before leaves files that
nothing names, and of two writers one is told that it was not the first (ADR 2, ADR 13).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from conductor_storage import Objects, ObstoreObjects
from conductor_warehouse.lake import layout
from conductor_warehouse.lake.errors import LakeCorrupt, LakeUnavailable, VersionNotFound
from conductor_warehouse.lake.records import DataFile, Entry, FileList, Generation, LakeVersion, digest_of

_log = logging.getLogger(__name__)
_SHORTEST_NAME = 6
_READERS = 8
_Record = TypeVar("_Record")


class Lake:
    """A lake in one place. Reading is safe while others export."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @classmethod
    def open(cls, location: str | Path) -> Lake:
        """Open the lake at a local path or URL (``file://``, ``s3://bucket/prefix``). Raises LakeUnavailable."""
        return cls(ObstoreObjects(location, unavailable=LakeUnavailable))

    def generations(self) -> dict[int, str]:
        """Keys of the pointer's generations, oldest first."""
        found = ((layout.parse_generation_key(entry.key), entry.key) for entry in self.objects.list(layout.GENERATIONS))
        return dict(sorted((number, key) for number, key in found if number is not None))

    def generation(self, number: int) -> Generation:
        """One generation. Raises LakeCorrupt, VersionNotFound."""
        key = layout.generation_key(number)
        return Generation.from_json(key, number, self._get(key))

    def current(self) -> tuple[int, Generation | None]:
        """The highest generation's number (0 for none), and the generation in force: the highest that can be read."""
        numbers = sorted(self.generations(), reverse=True)
        for number in numbers:
            try:
                return numbers[0], self.generation(number)
            except LakeCorrupt as error:
                _log.warning("passed over a generation: %s", error)
        return (numbers[0] if numbers else 0), None

    def version(self, name: str | None = None) -> tuple[str, LakeVersion]:
        """A version and its digest.

        Args:
            name: digest, or its first six digits or more; None: the version in force.

        Raises:
            VersionNotFound: there is none, or several have names that begin so.
            LakeCorrupt: it is damaged.
        """
        if name is None:
            generation = self.current()[1]
            if generation is None:
                raise VersionNotFound("nothing was exported to this lake yet: run `conductor lake export`")
            digest = generation.version
        else:
            digest = self._full_name(name)
        return digest, self._read(layout.version_key(digest), digest, LakeVersion.from_json)

    def versions(self) -> list[str]:
        """Digests of all versions that are stored."""
        prefix = len(layout.VERSIONS) + 1
        return sorted(entry.key[prefix:].removesuffix(".json") for entry in self.objects.list(layout.VERSIONS))

    def files(self, entry: Entry) -> FileList:
        """The files of an entry. Raises LakeCorrupt."""
        return self.file_list(entry.files_digest)

    def file_list(self, digest: str) -> FileList:
        """The list of files of that digest. Raises LakeCorrupt."""
        return self._read(layout.files_key(digest), digest, FileList.from_json)

    def content(self, file: DataFile) -> bytes:
        """What a file holds. Raises LakeCorrupt where it is not what was written."""
        return self._checked(file.key, file.digest)

    def read(
        self,
        version: LakeVersion,
        table: str,
        tenant_id: str,
        columns: list[str] | None = None,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
    ) -> pa.Table:
        """Rows of a table and tenant, in the order of days; every file is checked against its digest.

        Args:
            version: as :meth:`version` gives it.
            table: of the lake.
            tenant_id: the tenant.
            columns: these only; one that a file has not got is null there.
            first_day: rows of earlier days are left out.
            last_day: rows of later days are left out.

        Raises:
            LakeCorrupt: a file is absent or damaged.
        """
        contents = self.contents(version, table, tenant_id, first_day=first_day, last_day=last_day)

        def rows(content: bytes) -> pa.Table:
            source = pq.ParquetFile(pa.BufferReader(content))
            names = None if columns is None else [name for name in columns if name in source.schema_arrow.names]
            return source.read(columns=names, use_threads=False)

        parts = [rows(content) for content in contents]
        if not parts:
            return pa.table({})
        found = pa.concat_tables(parts, promote_options="default")
        return found if columns is None else found.select([name for name in columns if name in found.schema.names])

    def contents(
        self,
        version: LakeVersion,
        table: str,
        tenant_id: str,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
    ) -> list[bytes]:
        """The Parquet files of :meth:`read`, each checked against its digest, in the order of days.

        Raises:
            LakeCorrupt: a file is absent or damaged.
        """
        entry = version.entry(table, tenant_id)
        files = self.files(entry).files if entry else ()
        chosen = [
            file
            for file in files
            if (first_day is None or file.day >= first_day) and (last_day is None or file.day <= last_day)
        ]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.content, chosen))

    def _full_name(self, name: str) -> str:
        found = [digest for digest in self.versions() if digest.startswith(name)]
        if len(name) < _SHORTEST_NAME or not found:
            raise VersionNotFound(f"the lake has no version {name!r}: `conductor lake list --versions` tells them")
        if len(found) > 1:
            raise VersionNotFound(f"{len(found)} versions begin with {name!r}: give more digits")
        return found[0]

    def _read(self, key: str, digest: str, parse: Callable[[str, bytes], _Record]) -> _Record:
        return parse(key, self._checked(key, digest))

    def _checked(self, key: str, digest: str) -> bytes:
        content = self.objects.get(key)
        if content is None:
            raise LakeCorrupt(f"{key} is absent")
        found = digest_of(content)
        if found != digest:
            raise LakeCorrupt(f"{key} has digest {found[:16]}…, not {digest[:16]}…")
        return content

    def _get(self, key: str) -> bytes:
        content = self.objects.get(key)
        if content is None:
            raise VersionNotFound(f"{key} is absent")
        return content
