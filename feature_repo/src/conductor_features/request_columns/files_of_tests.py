"""Which tests are in changed files, going by their ids alone.

Test runners name a test by its file (``tests/test_cart.py::TestCart::test_total[2]``, ``src/cart.test.ts > totals``) or
by what stands for it: a module or class (``com.acme.CartTest#total`` is in some ``…/com/acme/CartTest.java``), or, in
Go, the package's folder (``github.com/acme/shop/cart.TestTotal``). They leave out folders from the left on, such as
those of a module or of its sources. So of a changed path each end that holds at least two names, or all of it, is
looked for at the beginning of ids: two files that agree in their last name only are two files.

Ids are sorted, so those that begin alike are neighbours: what it costs grows with the paths, hardly with the tests.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import compress

_BY_MODULE_OR_CLASS = frozenset({"py", "java", "kt", "groovy", "scala"})
"""Languages whose runners name a file by its path without the extension, with dots."""
_MOST_NAMES = 16
"""Longer ends of a path are not looked for, but for the whole."""
_FOUND = b"\1"

_FILE_ENDS = re.compile(r"(?![\w/-])")
"""Behind a file's name, or what stands for it: not within a longer name, nor within a folder's."""
_PACKAGE_ENDS = re.compile(r"(?<![^\w/-])[^\w/-]++(?=Test|Benchmark|Example|Fuzz)")
"""Behind a Go package's, perhaps with some of this: a function that ``go test`` runs."""
_VERSION = re.compile(r"/v[0-9]+(?=[/.])")


def ids_in_files(paths: Iterable[str], test_ids: Iterable[str], repository: str) -> list[str]:
    """Ids of the tests that are in any of the files, sorted, each once.

    Args:
        paths: of files, from the repository's root on.
        test_ids: in any order.
        repository: its name, ``acme/shop``: Go's packages begin with a host's name and this.
    """
    ordered = sorted(test_ids)
    parts = {path: path.split("/") for path in paths}
    files = dict.fromkeys(name for its in parts.values() for name in _names_of_file(its))
    folders = {tuple(its[:-1]): None for its in parts.values() if its[-1].endswith("_test.go")}
    module = _module(ordered, repository) if folders else ""
    packages = dict.fromkeys(name for folder in folders for name in _names_of_package(folder, module))
    found = bytearray(len(ordered))
    for name in files:
        for begin, end in _of_file(ordered, name):
            found[begin:end] = _FOUND * (end - begin)
    if packages:
        likely = bytearray(len(ordered))
        for name in packages:
            begin, end = _beginning_with(ordered, name)
            likely[begin:end] = _FOUND * (end - begin)
        lengths = frozenset(map(len, packages))
        for at in compress(range(len(ordered)), likely):
            found[at] |= _is_in_package(ordered[at], packages, lengths)
    return list(compress(ordered, found))


def _names_of_file(parts: Sequence[str]) -> Iterator[str]:
    """What an id may begin with that is of this file."""
    stem, _, extension = parts[-1].rpartition(".")
    yield from _ends(parts, "/")
    # At the root a module's name may be a package's elsewhere: app.py, and app/tests/test_cart.py in another folder.
    if extension in _BY_MODULE_OR_CLASS and len(parts) > 1:
        yield from _ends([*parts[:-1], stem], ".")


def _names_of_package(folder: Sequence[str], module: str) -> Iterator[str]:
    """What an id may begin with that is of the package in this folder."""
    if folder:
        yield from _ends(folder, "/")
    if module:
        yield "/".join([module, *folder])


def _ends(parts: Sequence[str], separator: str) -> Iterator[str]:
    """All of the parts, and the ends with two or more."""
    yield separator.join(parts)
    for first in range(max(1, len(parts) - _MOST_NAMES), len(parts) - 1):
        yield separator.join(parts[first:])


def _beginning_with(ordered: Sequence[str], name: str) -> tuple[int, int]:
    """From where on and up to where ids begin with a name."""
    first = bisect_left(ordered, name)
    if first == len(ordered) or not ordered[first].startswith(name):
        return first, first
    return first, _end_of(ordered, name, first, len(ordered))


def _end_of(ordered: Sequence[str], beginning: str, first: int, end: int) -> int:
    """Up to where ids begin alike, from the first that does."""
    return bisect_right(ordered, beginning, first, end, key=lambda one: one[: len(beginning)])


def _of_file(ordered: Sequence[str], name: str) -> Iterator[tuple[int, int]]:
    """Where ids stand that begin with a name that ends there. Those that go on alike are looked at together: names may
    begin with each other, and ids with all of them."""
    at, end = _beginning_with(ordered, name)
    while at < end:
        beginning = ordered[at][: len(name) + 1]
        alike = at + 1 if beginning == name else _end_of(ordered, beginning, at, end)
        if _FILE_ENDS.match(beginning, len(name)):
            yield at, alike
        at = alike


def _is_in_package(test_id: str, packages: Container[str], lengths: Container[int]) -> bool:
    """Whether one of the packages is what stands before a function that ``go test`` runs."""
    return any(
        length in lengths and test_id[:length] in packages
        for end in _PACKAGE_ENDS.finditer(test_id)
        for length in range(end.start(), end.end())
    )


def _module(ordered: Sequence[str], repository: str) -> str:
    """What Go calls the repository by the first id that tells: ``github.com/acme/shop/v2``; empty where none does."""
    text, name = "\n".join(["", *ordered]), f"/{repository}"
    at = text.find(name)
    while at >= 0:
        host = text[text.rfind("\n", 0, at) + 1 : at]
        if "/" not in host:
            version = _VERSION.match(text, at + len(name))
            return f"{host}{name}{version[0] if version else ''}"
        at = text.find(name, text.find("\n", at + len(name)))  # all that follows in this one has the host's slash too
    return ""
