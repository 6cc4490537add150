"""The latest signed move of each channel that was seen: with it, deleting or replaying files turns nothing back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from conductor_model_store.errors import CorruptModel, ModelStoreUnavailable
from conductor_model_store.records import Pointer
from conductor_model_store.scope import ModelScope

_SCHEMA = """CREATE TABLE IF NOT EXISTS seen (
    store TEXT, channel TEXT, generation INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (store, channel))"""
_KEEP = """INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    generation = excluded.generation, content = excluded.content WHERE excluded.generation >= seen.generation"""


class PointerMemory:
    """Pointers as they were signed, in memory or in a file that several processes may share. Safe between threads."""

    def __init__(self, path: Path | None = None, store: str = "") -> None:
        """Open it.

        ``path``: keeps it over restarts; ``store``: of which store this is the memory. Raises ModelStoreUnavailable.
        """
        self._store = store
        self._lock = threading.Lock()
        with _translated(path):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._path = path
            self._database = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=5.0)
            with self._database:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the latest moves, no more
                self._database.execute(_SCHEMA)

    def recall(self, scope: ModelScope, channel: str) -> tuple[str, bytes] | None:
        """Key and content of the latest pointer of a channel that was kept; None if none was."""
        return self._row(scope.channel_directory(channel))

    def keep(self, pointer: Pointer) -> None:
        """Remember a pointer, unless a later one of its channel is known."""
        directory = pointer.scope.channel_directory(pointer.channel)
        values = (self._store, directory, pointer.generation, pointer.to_json())
        with self._lock, _translated(self._path), self._database:
            self._database.execute(_KEEP, values)

    def forget(self, scope: ModelScope, channel: str) -> None:
        """Know nothing of a channel any more."""
        statement = "DELETE FROM seen WHERE store = ? AND channel = ?"
        with self._lock, _translated(self._path), self._database:
            self._database.execute(statement, (self._store, scope.channel_directory(channel)))

    def pointers(self, besides: Collection[str]) -> list[Pointer]:
        """Those that are kept of other channels than ``besides``, which are told by their directories."""
        statement = "SELECT channel FROM seen WHERE store = ?"
        with self._lock, _translated(self._path):
            rows = self._database.execute(statement, (self._store,)).fetchall()
        kept = (self._row(directory) for (directory,) in rows if directory not in besides)
        return [pointer for row in kept if row is not None and (pointer := _read(*row))]

    def _row(self, directory: str) -> tuple[str, bytes] | None:
        statement = "SELECT generation, content FROM seen WHERE store = ? AND channel = ?"
        with self._lock, _translated(self._path):
            row = self._database.execute(statement, (self._store, directory)).fetchone()
        return None if row is None else (f"{directory}/{row[0]:020d}.json", row[1])


def _read(key: str, content: bytes) -> Pointer | None:
    try:
        return Pointer.from_json(key, content)
    except CorruptModel:
        return None


@contextmanager
def _translated(path: Path | None) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise ModelStoreUnavailable(f"the memory of moves, {path}, can't be used: {error}") from error
