"""One file of a change, as a diff tells it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from conductor_features.changes.paths import PathFacts, facts_of

LineRange = tuple[int, int]
"""First and last line, from 1. ``(n + 1, n)`` is the place between lines n and n + 1, where lines came in or went."""


class Change(StrEnum):
    """What became of a file."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"
    COPIED = "copied"


class Content(StrEnum):
    """What kind of file it is."""

    TEXT = "text"
    BINARY = "binary"
    SUBMODULE = "submodule"
    SYMLINK = "symlink"


@dataclass(frozen=True)
class ChangedFile:
    """One file of a change."""

    old_path: str | None
    """None for an added file."""
    new_path: str | None
    """None for a deleted one."""
    change: Change
    content: Content = Content.TEXT
    mode_changed: bool = False
    """Its permissions are others, or it became a link; with no lines changed, that is all that changed."""
    added_line_count: int = 0
    deleted_line_count: int = 0
    old_ranges: tuple[LineRange, ...] = ()
    """What changed, in the lines of the old file, in order. Of a merge: of its first parent."""
    new_ranges: tuple[LineRange, ...] = ()
    """The same places, in the lines of the new file."""
    problem: str = ""
    """What of this file's part of the diff could not be read; counts and lines are then of the rest."""

    @property
    def path(self) -> str:
        """The file's path, after the change where it is still there."""
        return self.new_path or self.old_path or ""

    @property
    def mode_only(self) -> bool:
        """Whether nothing but its mode changed."""
        same = self.change is Change.MODIFIED and self.content is Content.TEXT
        return same and self.mode_changed and not self.old_ranges and not self.problem

    @cached_property
    def facts(self) -> PathFacts:
        """What its path tells."""
        return facts_of(self.path)
