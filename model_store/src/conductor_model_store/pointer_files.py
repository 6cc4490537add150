"""The files that channels are made of: one for each generation, never changed once it is there."""

from __future__ import annotations

import logging

from conductor_model_store.changes import ChangeJournal
from conductor_model_store.errors import CorruptModel, InvalidScope
from conductor_model_store.records import Pointer
from conductor_model_store.scope import ModelScope, ScopeKey, parse_key
from conductor_storage import Objects

_log = logging.getLogger(__name__)


class PointerFiles:
    """Reads and creates pointers. Each is read once; safe to use from several threads at once."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._journal = ChangeJournal(objects)
        self._read: dict[str, Pointer] = {}

    def read(self, key: str) -> Pointer | None:
        """The pointer under a key; None, and a line in the log, for one that can't be read."""
        pointer = self._read.get(key)
        if pointer is None:
            try:
                pointer = Pointer.from_json(key, self._objects.get(key) or b"")
            except CorruptModel as error:
                _log.warning("passed over a pointer: %s", error)
                return None
            self._read[key] = pointer
        return pointer

    def create(self, pointer: Pointer) -> bool:
        """Put a pointer in force unless its generation is taken; say whether it is."""
        key = pointer.scope.pointer_key(pointer.channel, pointer.generation)
        if not self._objects.put_if_absent(key, pointer.to_json()):
            return False
        self._journal.append(key)
        return True

    def generations(self, scope: ModelScope, channel: str) -> list[tuple[int, str]]:
        """Generations of a channel with their keys, newest first."""
        found = (
            (parsed.generation, entry.key)
            for entry in self._objects.list(scope.channel_directory(channel))
            if (parsed := parse_key(entry.key)) and parsed.channel == channel
        )
        return sorted(found, reverse=True)

    def current(self, scope: ModelScope, channel: str) -> tuple[int, Pointer | None]:
        """The highest generation's number (0 for none) and the pointer in force: the newest that can be read."""
        generations = self.generations(scope, channel)
        readable = (self.read(key) for _, key in generations)
        return (generations[0][0] if generations else 0), next((found for found in readable if found), None)

    def scope_of(self, key: str, parsed: ScopeKey) -> ModelScope | None:
        """The scope of a pointer's key; None where it is nobody's. A long name stands in the file only."""
        if parsed.tenant_id is None:
            pointer = self.read(key)
            return pointer.scope if pointer else None
        try:
            scope = ModelScope(parsed.predictor, parsed.tenant_id)
        except InvalidScope:
            return None
        return scope if scope.directory == parsed.directory else None
