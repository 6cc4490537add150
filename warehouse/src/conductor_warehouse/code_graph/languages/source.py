"""A parsed file, and what is asked of it in every language."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

from tree_sitter import Language, Node, Parser, Query, QueryCursor

from conductor_warehouse.code_graph.facts import Definition, Import, Unit

_MOST_REFERENCES = 2_000
_NAME = rb"[A-Za-z_$\x80-\xff][\w$\x80-\xff]*"
_CHAIN = re.compile(rb"(?<![\w$.\x80-\xff])" + _NAME + rb"(?:\s{0,200}\??\.\s{0,200}" + _NAME + rb")*")
_BETWEEN = re.compile(rb"\s*\??\.\s*")


class Source:
    """A file's bytes and tree."""

    def __init__(self, language: Language, data: bytes, blanked: str) -> None:
        """``blanked``: a query for what holds no names, comments and text."""
        self.data = data
        self.tree = Parser(language).parse(data)
        self.language = language
        self._starts = [0, *(found.end() for found in re.finditer(rb"\n", data))]
        self._code = self._blank(self.find(blanked).values())

    @property
    def root(self) -> Node:
        """The whole."""
        return self.tree.root_node

    def text(self, node: Node | None) -> str:
        """A node's text."""
        return "" if node is None else self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def find(self, query: str, node: Node | None = None) -> dict[str, list[Node]]:
        """Nodes by the names that a query gives them."""
        return QueryCursor(_query(self.language, query)).captures(node or self.root)

    def lines(self, node: Node) -> tuple[int, int]:
        """First and last line, from 1. A node that ends with a newline ends in the line before."""
        return self.line(node.start_byte), self.line(max(node.end_byte - 1, node.start_byte))

    def line(self, byte: int) -> int:
        """The line that a byte is in, from 1."""
        return bisect_right(self._starts, byte)

    def definitions(self, query: str) -> list[Definition]:
        """What a query captures as ``@function``, ``@class``, …, each with the names of what it is inside of."""
        found = [(node, kind) for kind, nodes in self.find(query).items() for node in nodes]
        found.sort(key=lambda one: (one[0].start_byte, -one[0].end_byte))
        definitions: list[Definition] = []
        outer: list[tuple[int, str]] = []
        for node, kind in found:
            while outer and outer[-1][0] <= node.start_byte:
                outer.pop()
            name = self.text(node.child_by_field_name("name"))
            qualified = f"{outer[-1][1]}.{name}" if outer else name
            outer.append((node.end_byte, qualified))
            definitions.append(Definition(qualified, kind, *self.lines(node)))
        return definitions

    def references(
        self, spans: Iterable[tuple[int, int]], imports: Sequence[Import], known: Callable[[str], bool]
    ) -> tuple[str, ...]:
        """Names that the code in these spans mentions, as far as known; of what is imported also the next name."""
        modules = _modules(imports)
        found: set[str] = set()
        for begin, end in spans:
            for chain in set(_CHAIN.findall(self._code, begin, end)):
                found.update(_names(chain, modules, known))
        return tuple(sorted(found)[:_MOST_REFERENCES])

    def gaps(self, taken: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The spans of the file that are not taken."""
        at = 0
        for begin, end in sorted(taken):
            if begin > at:
                yield at, begin
            at = max(at, end)
        yield at, len(self.data)

    def _blank(self, groups: Iterable[list[Node]]) -> bytes:
        code = bytearray(self.data)
        for nodes in groups:
            for node in nodes:
                code[node.start_byte : node.end_byte] = b" " * (node.end_byte - node.start_byte)
        return bytes(code)


def units_of(
    source: Source,
    nodes: Sequence[tuple[str, Node]],
    imports: Sequence[Import],
    known: Callable[[str], bool],
) -> tuple[Unit, ...]:
    """Units by their names and nodes."""
    return tuple(
        Unit(name, *source.lines(node), source.references([(node.start_byte, node.end_byte)], imports, known))
        for name, node in nodes
        if name
    )


def _modules(imports: Sequence[Import]) -> dict[str, list[list[str]]]:
    """Bindings, which may be of modules, in parts, by their first part."""
    modules: dict[str, list[list[str]]] = {}
    for one in imports:
        if one.binding:
            parts = one.binding.split(".")
            modules.setdefault(parts[0], []).append(parts)
    return modules


def _names(chain: bytes, modules: dict[str, list[list[str]]], known: Callable[[str], bool]) -> Iterator[str]:
    parts = [part.decode("utf-8", "replace") for part in _BETWEEN.split(chain)]
    found = modules.get(parts[0])
    if found is None:
        if known(parts[0]):
            yield parts[0]
        return
    for module in found:
        if parts[: len(module)] == module:
            yield ".".join(parts[: len(module) + 1])


@lru_cache(maxsize=64)
def _query(language: Language, query: str) -> Query:
    return Query(language, query)
