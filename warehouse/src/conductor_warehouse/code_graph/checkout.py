"""The files of a checkout: which there are, and their bytes, within bounds. Nothing of the repository is run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from conductor_client import git
from conductor_features.changes.paths import facts_of, is_test_path
from conductor_warehouse.code_graph.facts import FACTS_VERSION
from conductor_warehouse.code_graph.languages import READERS

MOST_FILES = 200_000
MOST_BYTES = 1 << 20
"""Of one file of code."""
_LONG_LINE = 2_000
_BUILD_FILES = frozenset({"go.mod", "package.json", "tsconfig.json", "jsconfig.json"})
"""What resolution needs beside code."""


class CheckoutError(Exception):
    """It can't be indexed; the message says why."""


@dataclass(frozen=True)
class SourceFile:
    """A file of the checkout that is code, or that tells how imports are resolved."""

    path: str
    data: bytes = b""
    digest: bytes = b""
    """Of all that its facts depend on."""
    skipped: str = ""
    """Why it is not read."""


class Checkout:
    """A folder with a repository's files."""

    def __init__(self, root: Path) -> None:
        """Raises :class:`CheckoutError`."""
        if not root.is_dir():
            raise CheckoutError(f"{root} is no folder")
        self.root = root.resolve()
        self._is_git = self.git("rev-parse", "--is-inside-work-tree", check=False).strip() == b"true"
        if self._is_git:
            top = self.git("rev-parse", "--show-toplevel").rstrip(b"\n")
            self.root = Path(os.fsdecode(top))

    def commit(self) -> str:
        """The commit that is checked out; empty where there is none."""
        return (
            self.git("rev-parse", "--verify", "--quiet", "HEAD", check=False).decode().strip() if self._is_git else ""
        )

    def diff(self, base: str) -> bytes:
        """What the working tree changed since it left ``base``, a commit or branch."""
        if not self._is_git:
            raise CheckoutError(f"{self.root} is not in a git repository")
        try:
            return git.diff_since(self.root, base)
        except git.GitError as error:
            raise CheckoutError(str(error)) from error

    def files(self) -> list[str]:
        """Paths of the code and of what resolution needs, sorted; those that git ignores are left out."""
        found = sorted(path for path in set(self._all()) if _is_wanted(path))
        if len(found) > MOST_FILES:
            raise CheckoutError(f"{len(found):,} files of code; {MOST_FILES:,} are taken")
        return found

    def read(self, path: str) -> SourceFile:
        """A file's bytes, or why it is not read. Links are not followed."""
        if (reason := _skip_by_path(path)) is not None:
            return SourceFile(path, skipped=reason)
        try:
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            return SourceFile(path, skipped="a symbolic link" if error.errno == 40 else f"{error.strerror}".lower())
        with os.fdopen(descriptor, "rb") as file:
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode):
                return SourceFile(path, skipped="not a file")
            data = file.read(MOST_BYTES + 1) if told.st_size <= MOST_BYTES else b""
        if told.st_size > MOST_BYTES or len(data) > MOST_BYTES:
            return SourceFile(path, skipped=f"larger than {MOST_BYTES >> 10} KiB")
        if (reason := _skip_by_content(data)) is not None:
            return SourceFile(path, skipped=reason)
        return SourceFile(path, data, _digest(path, data))

    def _all(self) -> Iterator[str]:
        if self._is_git:
            listed = self.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
            yield from (name.decode("utf-8", "replace") for name in listed.split(b"\0") if name)
            return
        for folder, folders, names in os.walk(self.root, followlinks=False):
            folders[:] = sorted(one for one in folders if one not in {"node_modules", "__pycache__", ".git"})
            within = Path(folder).relative_to(self.root)
            for name in names:
                yield (within / name).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def git(self, *arguments: str, check: bool = True) -> bytes:
        """What a git command prints that only reads."""
        try:
            return git.run_git(self.root, *arguments, check=check)
        except git.GitError as error:
            raise CheckoutError(str(error)) from error


def _is_wanted(path: str) -> bool:
    return path.rpartition("/")[2] in _BUILD_FILES or facts_of(path).language in READERS


def _skip_by_path(path: str) -> str | None:
    facts = facts_of(path)
    if facts.vendored:
        return "somebody else's code"
    if facts.generated and facts.language in {"javascript", "typescript"}:
        return "a bundle or generated"
    return None


def _skip_by_content(data: bytes) -> str | None:
    if b"\0" in data:
        return "binary"
    if len(data) > 10 * _LONG_LINE and len(data) > _LONG_LINE * (data.count(b"\n") + 1):
        return "lines as of a bundle"
    return None


def _digest(path: str, data: bytes) -> bytes:
    """What is read from a file depends on its contents, its extension and on whether it is a test."""
    name = path.rpartition("/")[2]
    kind = f"{FACTS_VERSION} {name.rpartition('.')[2]} {is_test_path(path) or name == 'conftest.py'}"
    return blake2b(data, digest_size=16, person=blake2b(kind.encode(), digest_size=16).digest()).digest()
