"""Python: modules, relative imports, pytest's and unittest's names."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Callable, Iterator

import tree_sitter_python
from tree_sitter import Language, Node

from conductor_features.changes.paths import is_test_path
from conductor_warehouse.code_graph.facts import Definition, FileFacts, Import
from conductor_warehouse.code_graph.languages.source import Source, units_of

_LANGUAGE = Language(tree_sitter_python.language())
_BLANKED = "(comment) @blank (string_content) @blank"
_DEFINITIONS = "(function_definition) @function (class_definition) @class"
_IMPORTS = "(import_statement) @plain (import_from_statement) @from (future_import_statement) @future"
_OPEN = frozenset(
    {"if_statement", "elif_clause", "else_clause", "try_statement", "except_clause", "finally_clause", "with_statement",
     "block", "module"}
)  # fmt: skip
"""What may hold definitions that are the module's own."""
_NOT_NAMES = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "cls"}


def read(path: str, data: bytes) -> FileFacts:
    """What a Python file says."""
    source = Source(_LANGUAGE, data, _BLANKED)
    imports = list(_imports(source))
    found = list(_units(source))
    known = _known(path, imports, {name for name, _ in found})
    taken = [(node.start_byte, node.end_byte) for _, node in found]
    taken += [(n.start_byte, n.end_byte) for nodes in source.find(_IMPORTS).values() for n in nodes]
    definitions = source.definitions(_DEFINITIONS)
    return FileFacts(
        units=units_of(source, found, imports, known),
        definitions=tuple(definitions),
        imports=tuple(imports),
        references=source.references(source.gaps(taken), imports, known),
        tests=tuple(_tests(definitions)),
        syntax_errors=source.root.has_error,
    )


def _imports(source: Source) -> Iterator[Import]:
    found = source.find(_IMPORTS)
    for node in found.get("plain", ()):
        for name in node.children_by_field_name("name"):
            alias = name.child_by_field_name("alias")
            module = source.text(name.child_by_field_name("name") if alias else name)
            yield Import(module, "", source.text(alias) if alias else module, exported=True)
    for node in found.get("from", ()):
        module = "".join(source.text(node.child_by_field_name("module_name")).split())
        names = node.children_by_field_name("name")
        for name in names:
            alias = name.child_by_field_name("alias")
            what = source.text(name.child_by_field_name("name") if alias else name)
            yield Import(module, what, source.text(alias) if alias else what, exported=True)
        if not names:
            yield Import(module, "*", "", exported=True)


def _units(source: Source) -> Iterator[tuple[str, Node]]:
    waiting = [source.root]
    while waiting:
        node = waiting.pop()
        if node.type in _OPEN:
            waiting.extend(reversed(node.named_children))
        elif node.type == "decorated_definition":
            inner = node.child_by_field_name("definition")
            yield source.text(inner.child_by_field_name("name") if inner else None), node
        elif node.type in {"function_definition", "class_definition"}:
            yield source.text(node.child_by_field_name("name")), node
        elif (
            node.type == "expression_statement"
            and node.named_child_count
            and node.named_children[0].type == "assignment"
        ):
            left = node.named_children[0].child_by_field_name("left")
            targets = left.named_children if left and left.type in {"pattern_list", "tuple_pattern"} else [left]
            for target in targets:
                if target is not None and target.type == "identifier":
                    yield source.text(target), node


def _known(path: str, imports: list[Import], own: set[str]) -> Callable[[str], bool]:
    """Tests take fixtures by their names from elsewhere, and so does who imports ``*``; others name what is theirs."""
    file = path.rpartition("/")[2]
    if is_test_path(path) or file == "conftest.py" or any(one.name == "*" for one in imports):
        return lambda name: name not in _NOT_NAMES
    names = own | {one.binding for one in imports if one.name}
    return names.__contains__


def _tests(definitions: list[Definition]) -> Iterator[str]:
    classes = {one.name for one in definitions if one.kind == "class"}
    for one in definitions:
        outer, _, name = one.name.rpartition(".")
        if one.kind == "function" and name.startswith("test") and (not outer or outer in classes):
            yield one.name
