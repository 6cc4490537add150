"""Brings to the lake what was committed since it was last brought up to date.

A day of a tenant that has changed in any way (new rows, late ones, corrected or deleted ones) is written anew, whole,
as new files, and the next version names those in place of the old ones. So the lake's content follows from the
warehouse's and from nothing else: many exports or one, interrupted or not, end in the same version.

Order of writing: files, lists of files, the version, then the next generation of the pointer, if nobody else has
created it. Whoever is killed in between has changed nothing that is read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import pyarrow as pa

from conductor_storage import Objects
from conductor_warehouse.lake import layout
from conductor_warehouse.lake.catalogue import Lake
from conductor_warehouse.lake.errors import LakeCorrupt, LakeMoved, VersionNotFound
from conductor_warehouse.lake.records import (
    DataFile,
    Entry,
    FileList,
    Generation,
    LakeVersion,
    Positions,
    Progress,
    digest_of,
)
from conductor_warehouse.lake.source import Source
from conductor_warehouse.lake.tables import LakeTable, describe, schema_version
from conductor_warehouse.lake.writing import parquet_files

_WRITERS = 8
_MOST_WAITING = 64
"""Files that are being written while further rows are read."""
_CHECKPOINT_SECONDS = 10.0
_MOST_ATTEMPTS = 20
_Key = tuple[str, str]


@dataclass
class ExportResult:
    """What an export did."""

    version: str = ""
    """Digest of the version that is in force now."""
    generation: int = 0
    parts: int = 0
    """Tables of tenants that were brought up to date."""
    resumed: int = 0
    """Of those, done by an export that had not ended."""
    files: int = 0
    """Files written."""
    rows: int = 0
    size_bytes: int = 0
    unchanged: bool = False
    """Nothing had been committed since the last export, so nothing was published."""


@dataclass(frozen=True)
class ExportProgress:
    """How far an export is."""

    table: str
    tenant_id: str
    done: int
    """Parts (tables of tenants) done."""
    total: int
    rows: int


@dataclass(frozen=True)
class _Part:
    """One table of one tenant that is to be brought up to date."""

    table: LakeTable
    tenant_id: str
    days: frozenset[date] | None
    """To be written anew; None: all."""
    since: date | None
    """Earlier days are left as they are."""
    kept_from: date | None
    """Earlier days are not kept any more."""

    @property
    def key(self) -> _Key:
        return self.table.name, self.tenant_id


@dataclass
class _Written:
    """A part whose files are under way."""

    part: _Part
    files: list[DataFile]
    writes: list[Future[None]]


@dataclass
class _State:
    """Of one attempt."""

    base: int
    generation: Generation | None
    entries: dict[_Key, Entry]
    positions: Positions
    schemas: dict[str, list[list[str]]]
    done: dict[_Key, tuple[Entry | None, str]] = field(default_factory=dict)

    def position(self, key: _Key) -> str:
        """The snapshot that a part is of; "" for none."""
        return self.done[key][1] if key in self.done else self.positions.of(*key)

    def entry(self, key: _Key) -> Entry | None:
        """What the lake, or the export that did not end, has of a part."""
        return self.done[key][0] if key in self.done else self.entries.get(key)


def export(
    lake: Lake,
    database_url: str,
    *,
    tables: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    since: date | None = None,
    full: bool = False,
    progress: Callable[[ExportProgress], None] = lambda _: None,
    checkpoint_seconds: float = _CHECKPOINT_SECONDS,
) -> ExportResult:
    """Bring the lake up to date with the warehouse, as of one moment.

    Safe to repeat, to kill at any step, and beside other exports to the same lake: the one that comes second begins
    anew from what the first has published. An export that was killed is gone on with.

    Args:
        lake: where to.
        database_url: the warehouse, by the login of the tables' owner.
        tables: only these; None: all.
        tenants: only these; None: all.
        since: how far back the history of parts that are new to the lake goes; days that the lake has stay current.
        full: read everything again, whatever is said to have changed; mends what is damaged.
        progress: told of each part when it has been read.
        checkpoint_seconds: how often it is noted what has been done.

    Raises:
        LakeError: the lake is damaged or does not answer.
        ValueError: there is no such table.
        psycopg.Error: the warehouse does not answer.
    """
    for _ in range(_MOST_ATTEMPTS):
        exporter = _Exporter(lake, tables, tenants, since, full, progress, checkpoint_seconds)
        # Before the warehouse's moment is taken, which is then later than that of what the lake holds.
        base, generation = lake.current()
        with Source(database_url) as source:
            result = exporter.attempt(source, base, generation)
        if result is not None:
            return result
    raise LakeMoved("other exports to this lake were published all the time: run it again when they have ended")


class _Exporter:
    def __init__(
        self,
        lake: Lake,
        tables: Collection[str] | None,
        tenants: Collection[str] | None,
        since: date | None,
        full: bool,
        progress: Callable[[ExportProgress], None],
        checkpoint_seconds: float,
    ) -> None:
        self._lake = lake
        self._tables = None if tables is None else frozenset(tables)
        self._tenants = None if tenants is None else frozenset(tenants)
        self._since, self._full = since, full
        self._progress, self._checkpoint_seconds = progress, checkpoint_seconds
        self._result = ExportResult()

    def attempt(self, source: Source, base: int, generation: Generation | None) -> ExportResult | None:
        """One attempt from the generation in force; None if another export was published meanwhile."""
        state = self._begin(source, base, generation)
        known = source.tables()
        unknown = (self._tables or frozenset()) - {table.name for table in known}
        if unknown:
            raise ValueError(f"the lake keeps no table {', '.join(sorted(unknown))}")
        chosen = [table for table in known if self._tables is None or table.name in self._tables]
        schemas = {table.name: source.schema(table) for table in chosen}
        state.schemas |= {schema_version(schema): describe(schema) for schema in schemas.values()}
        parts = [part for table in chosen for part in self._parts(source, state, table)]
        result = self._result
        result.parts, result.resumed = len(parts) + len(state.done), len(state.done)
        if not parts and not state.done and state.generation is not None:
            result.version, result.generation, result.unchanged = (
                state.generation.version,
                state.generation.number,
                True,
            )
            return result
        with ThreadPoolExecutor(_WRITERS) as pool:
            self._write(source, state, parts, schemas, pool)
        names = frozenset(table.name for table in known)
        positions = state.positions.moved(source.snapshot, self._tables, self._tenants, names)
        # What an earlier export did outside of these tables and tenants is of its own moment.
        outside = {key: at for key, (_, at) in state.done.items() if not self._concerns(*key)}
        return self._publish(source, state, replace(positions, parts={**positions.parts, **outside}))

    def _begin(self, source: Source, base: int, generation: Generation | None) -> _State:
        version = self._version(generation)
        # Positions in another database say nothing.
        same = generation is not None and generation.source == source.identity
        positions = generation.positions if generation is not None and same else Positions()
        state = _State(base, generation, dict(version.by_key), positions, dict(version.schemas))
        found = None if self._full else _unfinished(self._lake)
        if found and (found.base, found.source) == (base, source.identity):
            state.done = dict(found.done)
            state.schemas |= found.schemas
        return state

    def _version(self, generation: Generation | None) -> LakeVersion:
        """What the lake holds; nothing where that is damaged and everything is read again anyway."""
        if generation is None:
            return LakeVersion(())
        try:
            return self._lake.version(generation.version)[1]
        except (LakeCorrupt, VersionNotFound):
            if not self._full or self._tables is not None or self._tenants is not None:
                raise
            return LakeVersion(())

    def _concerns(self, table: str, tenant_id: str) -> bool:
        return (self._tables is None or table in self._tables) and (self._tenants is None or tenant_id in self._tenants)

    def _parts(self, source: Source, state: _State, table: LakeTable) -> Iterator[_Part]:
        """What has changed of a table."""
        own = {key for key in [*state.positions.parts, *state.done] if key[0] == table.name}

        def position_of(key: _Key) -> str:
            return "" if self._full else state.position(key)

        common = "" if self._full else state.positions.of_table(table.name)
        changes = {
            position: source.changed(table, position)
            for position in {common, *(position_of(key) for key in own)} - {""}
        }
        stored = {tenant for name, tenant in state.entries if name == table.name} | {tenant for _, tenant in own}
        there = {tenant for days in changes.values() for tenant in days}
        if not common or any(not position_of(key) for key in own):
            there |= set(source.tenants(table))
        if self._tenants is not None:
            there, stored = there & self._tenants, stored & self._tenants
        horizons = source.horizons(there | stored)
        for tenant_id in sorted(there | stored):
            key = (table.name, tenant_id)
            position = position_of(key)
            days = frozenset(changes[position].get(tenant_id, ())) if position else None
            entry = state.entry(key)
            part = self._part(table, tenant_id, days, entry, horizons.get(tenant_id))
            outdated = entry is not None and _before(entry.first_day, part.kept_from)
            # A tenant that is new to the lake gets an entry even without such a day: it says since when.
            begins = part.since is not None if entry is None else part.since != entry.since
            if part.days is None or part.days or outdated or begins:
                yield part

    def _part(
        self,
        table: LakeTable,
        tenant_id: str,
        days: frozenset[date] | None,
        entry: Entry | None,
        kept_from: date | None,
    ) -> _Part:
        since = self._since
        if entry is not None and days is not None:
            if entry.since is None or (since is not None and since >= entry.since):
                since = entry.since  # goes back far enough
            else:
                # Goes back further than before: those days have not been read yet.
                return _Part(table, tenant_id, None, since, kept_from)
        elif entry is not None and since is not None and (entry.since is None or entry.since < since):
            since = entry.since
        if days is not None and since is not None:
            days = frozenset(day for day in days if day >= since)
        return _Part(table, tenant_id, days, since, kept_from)

    def _write(
        self,
        source: Source,
        state: _State,
        parts: list[_Part],
        schemas: Mapping[str, pa.Schema],
        pool: ThreadPoolExecutor,
    ) -> None:
        waiting: deque[_Written] = deque()
        noted = time.monotonic()
        for number, part in enumerate(parts):
            waiting.append(self._write_part(source, state, part, schemas[part.table.name], pool))
            due = time.monotonic() - noted >= self._checkpoint_seconds
            while waiting and (due or sum(len(written.writes) for written in waiting) > _MOST_WAITING):
                self._finish(source, state, waiting.popleft())
            if due:
                self._note(source, state)
                noted = time.monotonic()
            self._progress(ExportProgress(part.table.name, part.tenant_id, number + 1, len(parts), self._result.rows))
        for written in waiting:
            self._finish(source, state, written)

    def _write_part(
        self, source: Source, state: _State, part: _Part, schema: pa.Schema, pool: ThreadPoolExecutor
    ) -> _Written:
        entry = state.entry(part.key)
        old = [] if entry is None or part.days is None else self._lake.files(entry).files
        first = max(filter(None, (part.since, part.kept_from)), default=None)
        files = [file for file in old if file.day not in (part.days or ()) and not _before(file.day, part.kept_from)]
        writes: list[Future[None]] = []
        for begin, end in [(first, None)] if part.days is None else _runs(part.days, first):
            rows = source.rows(part.table, part.tenant_id, schema, begin, end)
            for file, content in parquet_files(part.table.name, part.tenant_id, schema, rows):
                files.append(file)
                writes.append(pool.submit(put_once, self._lake.objects, file.key, content))
                if len(writes) > _MOST_WAITING:
                    writes.pop(0).result()
                self._result.files += 1
                self._result.rows += file.rows
                self._result.size_bytes += file.size_bytes
        return _Written(part, sorted(files, key=lambda file: file.key), writes)

    def _finish(self, source: Source, state: _State, written: _Written) -> None:
        """Write the list of a part's files, when they are all there."""
        for write in written.writes:
            write.result()
        part = written.part
        entry = None
        if written.files or part.since is not None:
            files = FileList(part.table.name, part.tenant_id, tuple(written.files))
            content = files.to_json()
            digest = digest_of(content)
            put_once(self._lake.objects, layout.files_key(digest), content)
            entry = Entry.of(files, digest, part.since)
        state.done[part.key] = (entry, source.snapshot)

    def _note(self, source: Source, state: _State) -> None:
        note = Progress(state.base, source.identity, state.done, state.schemas)
        self._lake.objects.put(layout.PROGRESS, note.to_json())

    def _publish(self, source: Source, state: _State, positions: Positions) -> ExportResult | None:
        entries = dict(state.entries)
        for key, (entry, _) in state.done.items():
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
        used = {schema for entry in entries.values() for schema in entry.schema_versions}
        schemas = {name: columns for name, columns in state.schemas.items() if name in used}
        version = LakeVersion(tuple(entries[key] for key in sorted(entries)), schemas)
        digest = version.digest
        put_once(self._lake.objects, layout.version_key(digest), version.to_json())
        generation = Generation(state.base + 1, digest, source.time, source.identity, positions)
        if not self._lake.objects.put_if_absent(layout.generation_key(generation.number), generation.to_json()):
            return None
        self._lake.objects.delete(layout.PROGRESS)
        self._result.version, self._result.generation = digest, generation.number
        return self._result


def put_once(objects: Objects, key: str, content: bytes) -> None:
    """Write an immutable object. One that is there is written again: it may be damaged, or about to be vacuumed."""
    if not objects.put_if_absent(key, content):
        objects.put(key, content)


def _unfinished(lake: Lake) -> Progress | None:
    content = lake.objects.get(layout.PROGRESS)
    if content is None:
        return None
    try:
        found = Progress.from_json(layout.PROGRESS, content)
        for entry, _ in found.done.values():
            if entry is not None:
                lake.files(entry)
    except LakeCorrupt:
        return None
    return found


def _before(day: date | None, limit: date | None) -> bool:
    return day is not None and limit is not None and day < limit


def _runs(days: Iterable[date], first: date | None) -> Iterator[tuple[date, date]]:
    """Days as ranges without gaps."""
    begin = end = None
    for day in sorted(days):
        if _before(day, first):
            continue
        if begin is None or end is None:
            begin = day
        elif day - end > timedelta(days=1):
            yield begin, end
            begin = day
        end = day
    if begin is not None and end is not None:
        yield begin, end
