"""Moving channels: each move creates the next generation, or does not happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from conductor_model_store.errors import CorruptModel, ModelNotFound, PointerMoved, UntrustedModel
from conductor_model_store.pointer_files import PointerFiles
from conductor_model_store.records import Pointer
from conductor_model_store.scope import ModelScope

_MOST_ATTEMPTS = 1000  # each failed attempt is another publisher's success


class ChannelMoves:
    """Moves the channels of a store. ``actor`` is who moves one, ``detail`` is why, in words."""

    def __init__(self, files: PointerFiles) -> None:
        self._files = files

    def point(self, wanted: Pointer) -> Pointer:
        """Move a channel to a version, whatever it points at; a move by another process meanwhile comes before ours.

        ``wanted``: its generations are filled in here. Raises NoAuthority.
        """
        scope, channel = wanted.scope, wanted.channel
        target = (wanted.version, wanted.manifest_digest, wanted.weight)
        for _ in range(_MOST_ATTEMPTS):
            highest, current = self._files.current(scope, channel)
            if current and (current.version, current.manifest_digest, current.weight) == target:
                return current
            previous = current.generation if current else 0
            made = self._files.create(replace(wanted, generation=highest + 1, previous_generation=previous), current)
            if made:
                return made
        raise PointerMoved(f"{scope.resource_name}, {channel} is being moved by others all the time")

    def back(
        self, scope: ModelScope, channel: str, check: Callable[[Pointer], object], actor: str, detail: str
    ) -> Pointer:
        """Point a channel at what it pointed at before, after checking that.

        Raises ModelNotFound, CorruptModel, PointerMoved, NoAuthority.
        """
        highest, current = self._current(scope, channel)
        target = self._before(current)
        check(target)
        return self._next(
            replace(
                target,
                generation=highest + 1,
                published_time=datetime.now(UTC),
                reason="rollback",
                detail=detail,
                actor=actor,
            ),
            current,
        )

    def withdraw(self, scope: ModelScope, channel: str, expected: Pointer | None, actor: str, detail: str) -> Pointer:
        """Let a channel point nowhere. Raises ModelNotFound, PointerMoved, NoAuthority."""
        highest, current = self._current(scope, channel)
        if expected is not None and current.generation != expected.generation:
            raise PointerMoved(f"{scope.resource_name}, {channel} was moved meanwhile")
        if current.withdrawn:
            return current
        return self._next(
            replace(
                current,
                generation=highest + 1,
                version="",
                manifest_digest="",
                published_time=datetime.now(UTC),
                reason="withdraw",
                previous_generation=current.generation,
                weight=0.0,
                detail=detail,
                actor=actor,
            ),
            current,
        )

    def sign(self, scope: ModelScope, channel: str, check: Callable[[Pointer], object]) -> Iterator[tuple[str, str]]:
        """Add our signature to a channel's trusted generations; to all of them where none is trusted.

        Yields each one's key, and why it was not signed; empty if it was. Raises NoAuthority, and what ``check`` raises
        but CorruptModel, ModelNotFound, UntrustedModel.
        """
        keys = [key for _, key in self._files.generations(scope, channel)]
        trusted = [pointer for key in keys if (pointer := self._files.read(key))]
        for pointer in trusted or [pointer for key in keys if (pointer := self._files.unchecked(key))]:
            problem = ""
            try:
                if not pointer.withdrawn:
                    check(pointer)
                self._files.sign(pointer)
            except (CorruptModel, ModelNotFound, UntrustedModel) as error:
                problem = str(error)
            yield scope.pointer_key(channel, pointer.generation), problem

    def restart(
        self, scope: ModelScope, channel: str, above: int, check: Callable[[Pointer], object], actor: str, detail: str
    ) -> Pointer:
        """Begin a new chain, above a generation that servers saw and the store lost, where the channel points now.

        Raises ModelNotFound, PointerMoved, NoAuthority, and as ``check``.
        """
        highest, current = self._current(scope, channel)
        if not current.withdrawn:
            check(current)
        begun = replace(
            current,
            generation=max(highest, above) + 1,
            published_time=datetime.now(UTC),
            reason="restart",
            detail=detail,
            actor=actor,
        )
        return self._next(begun, None)

    def _current(self, scope: ModelScope, channel: str) -> tuple[int, Pointer]:
        highest, current = self._files.current(scope, channel)
        if current is None:
            raise ModelNotFound(f"{scope.resource_name} has no channel {channel!r}")
        return highest, current

    def _next(self, pointer: Pointer, current: Pointer | None) -> Pointer:
        made = self._files.create(pointer, current)
        if made is None:
            what = f"{pointer.scope.resource_name}, {pointer.channel}"
            raise PointerMoved(f"{what} was moved meanwhile: look at it before deciding anew")
        return made

    def _before(self, pointer: Pointer) -> Pointer:
        """What the channel pointed at before a pointer. Raises ModelNotFound, CorruptModel."""
        target = pointer
        while target is pointer or target.withdrawn:
            if target.previous_generation == 0:
                what = pointer.version or "it was withdrawn"
                raise ModelNotFound(
                    f"{pointer.scope.resource_name}, {pointer.channel}: there is no version before {what}"
                )
            key = pointer.scope.pointer_key(pointer.channel, target.previous_generation)
            found = self._files.read(key)
            if found is None or found.generation >= target.generation:
                raise CorruptModel(f"{key} can't be read or is not trusted; promote a version instead")
            target = found
        return target
