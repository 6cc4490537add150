"""The files that channels are made of: one for each generation, never changed once it is there.

Where keys are trusted to move channels, only what they signed counts. Where there is a memory of moves, a channel goes
forward only: to what follows, link by link, the latest move that was seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conductor_model_store.changes import ChangeJournal
from conductor_model_store.errors import (
    CorruptModel,
    ForkedPointer,
    InvalidScope,
    ModelStoreError,
    RewoundPointer,
    UntrustedPointer,
)
from conductor_model_store.pointer_memory import PointerMemory
from conductor_model_store.records import Pointer
from conductor_model_store.scope import ModelScope, ScopeKey, parse_key
from conductor_storage import Objects

if TYPE_CHECKING:
    from conductor_model_store.signatures import Trust

OnRefused = Callable[[str, ModelStoreError], None]
"""Is told the key of a pointer that was passed over, and why."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """A pointer that was read, and what it was checked by."""

    keys: object
    content: bytes
    pointer: Pointer


class PointerFiles:
    """Reads and creates pointers. Each is checked once; safe to use from several threads at once."""

    def __init__(
        self,
        objects: Objects,
        trust: Trust | None = None,
        memory: PointerMemory | None = None,
        on_refused: OnRefused = lambda _key, _error: None,
    ) -> None:
        self._objects, self._trust, self._on_refused = objects, trust, on_refused
        self._journal = ChangeJournal(objects)
        self._read: dict[str, _Read] = {}
        self._told: dict[str, str] = {}
        self.memory = memory if trust is not None and trust.mover_keys is not None else None
        """The latest moves that were seen."""

    def read(self, key: str) -> Pointer | None:
        """The pointer under a key; None, and a line in the log, for one that can't be read or is not trusted."""
        keys = self._keys
        known = self._read.get(key)
        if known is not None and keys is None:
            return known.pointer
        # Where moves are signed, whoever can't sign may still put another signed file there: it is read each time.
        content = self._objects.get(key)
        if content is None:
            return None
        if known is not None and known.keys is keys and known.content == content:
            return known.pointer
        try:
            pointer = _checked(key, content, keys)
        except (CorruptModel, UntrustedPointer) as error:
            self._refuse(key, error)
            return None
        self._read[key] = _Read(keys, content, pointer)
        return pointer

    def check(self, key: str) -> Pointer:
        """As `read`, anew. Raises CorruptModel, UntrustedPointer."""
        return _checked(key, self._objects.get(key) or b"", self._keys)

    def create(self, pointer: Pointer, predecessor: Pointer | None) -> Pointer | None:
        """Sign a pointer and put it in force; None if its generation is taken. Raises NoAuthority.

        ``predecessor``: what is in force; None begins a chain.
        """
        pointer = self._signed(replace(pointer, predecessor=predecessor.digest if predecessor else "", signatures=()))
        key = pointer.scope.pointer_key(pointer.channel, pointer.generation)
        if not self._objects.put_if_absent(key, pointer.to_json()):
            return None
        if self.memory is not None:
            self.memory.keep(pointer)
        self._journal.append(key)
        return pointer

    def sign(self, pointer: Pointer) -> None:
        """Add our signature to a pointer that is there; other keys' signatures stay. Raises NoAuthority."""
        signed = self._signed(pointer)
        if signed != pointer:
            self._objects.put(_key(pointer), signed.to_json())

    def generations(self, scope: ModelScope, channel: str) -> list[tuple[int, str]]:
        """Generations of a channel with their keys, newest first."""
        found = (
            (parsed.generation, entry.key)
            for entry in self._objects.list(scope.channel_directory(channel))
            if (parsed := parse_key(entry.key)) and parsed.channel == channel
        )
        return sorted(found, reverse=True)

    def current(self, scope: ModelScope, channel: str) -> tuple[int, Pointer | None]:
        """The highest generation's number (0 for none) and the pointer in force: the newest that counts."""
        seen = self._seen(scope, channel)  # before the listing, which then can't be older
        generations = self.generations(scope, channel)
        found = next((pointer for _, key in generations if (pointer := self.read(key))), None)
        pointer = self._forward(found, seen)
        return max(generations[0][0] if generations else 0, pointer.generation if pointer else 0), pointer

    def latest(self, scope: ModelScope, channel: str, generation: int) -> Pointer | None:
        """The pointer in force, where a generation is likely to be the newest: without a listing if it is."""
        seen = self._seen(scope, channel)
        found = self.read(scope.pointer_key(channel, generation))
        if found is None or (seen is not None and found.generation < seen.generation):
            return self.current(scope, channel)[1]
        return self._forward(found, seen)

    def scope_of(self, key: str, parsed: ScopeKey) -> ModelScope | None:
        """The scope of a pointer's key; None where it is nobody's. A long name stands in the file only."""
        if parsed.tenant_id is None:
            known = self._read.get(key)
            pointer = known.pointer if known is not None else self.read(key)
            return pointer.scope if pointer else None
        try:
            scope = ModelScope(parsed.predictor, parsed.tenant_id)
        except InvalidScope:
            return None
        return scope if scope.directory == parsed.directory else None

    def unchecked(self, key: str) -> Pointer | None:
        """The pointer under a key, whoever signed it; None for one that can't be read."""
        try:
            return _checked(key, self._objects.get(key) or b"", None)
        except CorruptModel:
            return None

    def _signed(self, pointer: Pointer) -> Pointer:
        if self._trust is None:
            return pointer
        self._trust.require_authority()
        if self._trust.mover is None:
            return pointer
        from conductor_model_store.pointer_signatures import sign_pointer  # noqa: PLC0415  # takes long to import

        return sign_pointer(pointer, self._trust.mover)

    @property
    def _keys(self) -> Mapping[str, Any] | None:
        return self._trust.mover_keys if self._trust is not None else None

    def _seen(self, scope: ModelScope, channel: str) -> Pointer | None:
        """The latest move that was seen, unless its key is trusted no longer."""
        if self.memory is None or (known := self.memory.recall(scope, channel)) is None:
            return None
        try:
            return _checked(*known, self._keys)
        except (CorruptModel, UntrustedPointer):
            self.memory.forget(scope, channel)
            return None

    def _forward(self, found: Pointer | None, seen: Pointer | None) -> Pointer | None:
        """What was found, if it follows what was seen; else what was seen."""
        if self.memory is None or found is None or seen is None:
            if found is not None and self.memory is not None:
                self.memory.keep(found)
            elif seen is not None:
                self._refuse(_key(seen), RewoundPointer(f"{_key(seen)} was seen, and no trusted generation is left"))
            return found or seen
        error: ModelStoreError
        if found.digest == seen.digest:
            if found != seen:  # signed by one more
                self.memory.keep(found)
            return found
        if found.generation < seen.generation:
            error = RewoundPointer(f"{_key(found)} is the newest trusted generation, but {seen.generation} was seen")
        elif found.generation == seen.generation or not self._follows(found, seen):
            error = ForkedPointer(f"{_key(found)} does not follow generation {seen.generation} as it was seen")
        else:
            self.memory.keep(found)
            return found
        self._refuse(_key(found), error)
        return seen

    def _follows(self, found: Pointer, seen: Pointer) -> bool:
        """Whether the chain leads from one to the other. A beginning between them was vouched for by its signer."""
        wanted = found.predecessor
        for generation, key in self.generations(found.scope, found.channel):
            if wanted in ("", seen.digest):
                break
            if seen.generation < generation < found.generation:
                link = self.unchecked(key)
                if link is not None and link.digest == wanted:
                    wanted = link.predecessor
        return wanted in ("", seen.digest)

    def _refuse(self, key: str, error: ModelStoreError) -> None:
        """Tell of it, once for each reason."""
        if self._told.get(key) != str(error):
            self._told[key] = str(error)
            _log.warning("passed over a pointer: %s", error)
            self._on_refused(key, error)


def _checked(key: str, content: bytes, keys: Mapping[str, Any] | None) -> Pointer:
    """Read a pointer and check who signed it. Raises CorruptModel, UntrustedPointer."""
    pointer = Pointer.from_json(key, content)
    if keys is not None:
        from conductor_model_store.pointer_signatures import check_pointer  # noqa: PLC0415  # takes long to import

        check_pointer(key, pointer, content, keys)
    return pointer


def _key(pointer: Pointer) -> str:
    return pointer.scope.pointer_key(pointer.channel, pointer.generation)
