"""Headers: which file a part of a diff is of, and what is said of it beside its lines."""

from __future__ import annotations

import re

from conductor_features.changes.changed_file import Change, ChangedFile, Content, LineRange

_DEV_NULL = "/dev/null"
_MOST_CHARACTERS = 4_096
_MOST_BYTES = 16 * _MOST_CHARACTERS
"""No character takes more: four bytes, of which each may be written as a backslash and three digits."""
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}
_QUOTED_FIRST = re.compile(rb'("(?:[^"\\]++|\\.)*+") (.+)$', re.DOTALL)
_QUOTED_LAST = re.compile(rb'([^"]+) ("(?:[^"\\]++|\\.)*+")$', re.DOTALL)
_PREFIXES = frozenset({("a/", "b/"), ("i/", "w/"), ("c/", "i/"), ("c/", "w/"), ("o/", "w/"), ("1/", "2/")})
"""What git puts before the old and the new path: by default, and with ``diff.mnemonicPrefix`` or ``--no-index``."""
_PREFIXES_BACK = frozenset((new, old) for old, new in _PREFIXES)
_SUBMODULE_MODE, _SYMLINK_MODE = b"160000", b"120000"
_BINARY = (b"Binary files ", b"GIT binary patch", b"Files ")


def text_of(path: bytes) -> str:
    """A path as a diff writes it, unquoted; what is not UTF-8 is replaced."""
    if path[:1] == b'"' and path[-1:] == b'"' and len(path) > 1:
        path = _ESCAPE.sub(_unescape, path[1:-1][:_MOST_BYTES])
    return path[:_MOST_BYTES].decode("utf-8", "replace")[:_MOST_CHARACTERS]


def _unescape(found: re.Match[bytes]) -> bytes:
    code = found[1]
    return bytes([int(code, 8) & 0xFF]) if code.isdigit() and code < b"8" else _ESCAPED.get(code, code)


def git_paths(names: bytes) -> tuple[str | None, str | None, bool]:
    """Old and new path of ``diff --git <names>``, and whether they had prefixes.

    The two are not told apart unless one is quoted or has no space; but they are the same, or else further headers tell
    them: then the halves are compared.
    """
    quoted = _QUOTED_FIRST.match(names) or _QUOTED_LAST.match(names)
    if quoted is not None:
        old, new = text_of(quoted[1]), text_of(quoted[2])
    elif names.count(b" ") == 1:
        old, new = map(text_of, names.split(b" "))
    else:
        middle = len(names) // 2
        old, new = text_of(names[:middle]), text_of(names[middle + 1 :])
        if names[middle : middle + 1] != b" " or (old[2:] != new[2:] and old != new):
            return None, None, names.startswith((b"a/", b'"a/'))
    if (old[:2], new[:2]) in _PREFIXES | _PREFIXES_BACK:
        return old[2:], new[2:], True
    return old or None, new or None, False


def plain_paths(old: bytes, new: bytes, stripped: bool | None) -> tuple[str | None, str | None]:
    """Old and new path of ``--- old`` and ``+++ new``; None is ``/dev/null``.

    Args:
        old: what follows the dashes.
        new: what follows the pluses.
        stripped: whether git put prefixes before them; None where that is not known.
    """
    # What follows a tab is a time; git ends a name that has spaces with one.
    texts = [text_of(line.rstrip(b"\r").partition(b"\t")[0]) for line in (old, new)]
    heads = (texts[0][:2], texts[1][:2])
    if stripped is None:
        known = _PREFIXES | _PREFIXES_BACK
        either = {head for pair in known for head in pair}
        stripped = heads in known or (_DEV_NULL in texts and (heads[0] in either or heads[1] in either))
    old_path, new_path = (
        None if text == _DEV_NULL else text[2:] if stripped and text[1:2] == "/" else text for text in texts
    )
    return old_path or None, new_path or None


class FilePart:
    """What has been read of one file's part."""

    __slots__ = (
        "_binary", "_change", "_mode_changed", "_modes", "_new_path", "_new_ranges", "_old_path", "_old_ranges",
        "added", "deleted", "has_hunks", "has_paths", "problem", "stripped",
    )  # fmt: skip

    def __init__(self, old_path: str | None, new_path: str | None, stripped: bool | None = None) -> None:
        self._old_path, self._new_path, self.stripped = old_path, new_path, stripped
        self._change = Change.MODIFIED
        self._binary = self._mode_changed = False
        self._modes: set[bytes] = set()
        self._old_ranges: list[LineRange] = []
        self._new_ranges: list[LineRange] = []
        self.added = self.deleted = 0
        self.has_hunks = self.has_paths = False
        self.problem = ""

    @classmethod
    def of_submodule(cls, path: str, told: bytes) -> FilePart:
        """What ``--submodule=log`` prints in place of a part."""
        part = cls(path, path)
        part._modes.add(_SUBMODULE_MODE)
        part._change = {b"new submodule": Change.ADDED, b"submodule deleted": Change.DELETED}.get(told, Change.MODIFIED)
        return part

    def set_paths(self, old_path: str | None, new_path: str | None) -> None:
        """What the lines before the first hunk say."""
        self.has_paths = True
        if self._change in (Change.RENAMED, Change.COPIED) and self._old_path and self._new_path:
            return  # told without prefixes already
        if old_path is None and new_path is not None and self._change is Change.MODIFIED:
            self._change = Change.ADDED
        elif new_path is None and old_path is not None and self._change is Change.MODIFIED:
            self._change = Change.DELETED
        self._old_path, self._new_path = old_path or self._old_path, new_path or self._new_path

    def read_header(self, line: bytes) -> None:
        """A line between ``diff --git`` and the first hunk; one that says nothing of the file is passed over."""
        key, _, value = line.partition(b" ")
        if line.startswith(_BINARY):
            self._binary = self._binary or line[:1] != b"F" or line.endswith(b" differ")
        elif key in (b"rename", b"copy"):
            self._change = Change.RENAMED if key == b"rename" else Change.COPIED
            which, _, path = value.partition(b" ")
            if which == b"from":
                self._old_path = text_of(path)
            elif which == b"to":
                self._new_path = text_of(path)
        elif key in (b"new", b"deleted") and value.startswith(b"file mode "):
            self._change = Change.ADDED if key == b"new" else Change.DELETED
            self._modes.add(value[len(b"file mode ") :][:6])
        elif key in (b"old", b"new") and value.startswith(b"mode "):
            self._mode_changed = True
            self._modes.add(value[len(b"mode ") :][:6])
        elif key == b"mode":  # of a combined diff: old,old..new
            self._mode_changed = True
            self._modes.add(value[-6:])
        elif key == b"index":
            self._modes.add(value.rpartition(b" ")[2][:6])

    def add_change(self, old_begin: int, old_end: int, new_begin: int, new_end: int) -> None:
        """Lines from ``begin`` up to, but not including, ``end`` became others."""
        self._old_ranges.append((old_begin, old_end - 1))
        self._new_ranges.append((new_begin, new_end - 1))

    def changed_file(self) -> ChangedFile:
        """All that was read."""
        old_path = None if self._change is Change.ADDED else self._old_path
        new_path = None if self._change is Change.DELETED else self._new_path
        problem = self.problem
        if not (old_path or new_path):
            old_path = new_path = None
            problem = problem or "its path can't be told"
        content = Content.TEXT
        if _SUBMODULE_MODE in self._modes:
            content = Content.SUBMODULE
        elif self._binary:
            content = Content.BINARY
        elif _SYMLINK_MODE in self._modes:
            content = Content.SYMLINK
        return ChangedFile(
            old_path=old_path,
            new_path=new_path,
            change=self._change,
            content=content,
            mode_changed=self._mode_changed,
            added_line_count=self.added,
            deleted_line_count=self.deleted,
            old_ranges=tuple(self._old_ranges),
            new_ranges=tuple(self._new_ranges),
            problem=problem,
        )
