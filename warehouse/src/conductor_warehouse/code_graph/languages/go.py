"""Go: packages are folders, whose files know each other; ``go test``'s names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tree_sitter_go
from tree_sitter import Language, Node

from conductor_warehouse.code_graph.facts import FileFacts, Import
from conductor_warehouse.code_graph.languages.source import Source, units_of

_LANGUAGE = Language(tree_sitter_go.language())
_BLANKED = "(comment) @blank (interpreted_string_literal) @blank (raw_string_literal) @blank"
_DEFINITIONS = "(function_declaration) @function (method_declaration) @function (type_spec) @class (type_alias) @class"
_TEST = re.compile(r"(?:Test|Benchmark|Fuzz|Example)(?![a-z])")


def read(path: str, data: bytes) -> FileFacts:
    """What a Go file says."""
    source = Source(_LANGUAGE, data, _BLANKED)
    imports = list(_imports(source))
    found = list(_units(source))
    definitions = source.definitions(_DEFINITIONS)
    package = source.find("(package_clause (package_identifier) @name)").get("name", [None])[0]
    tests = [one.name for one in definitions if path.endswith("_test.go") and _TEST.match(one.name)]
    return FileFacts(
        package=source.text(package),
        units=units_of(source, found, imports, lambda _: True),
        definitions=tuple(definitions),
        imports=tuple(imports),
        tests=tuple(tests),
        syntax_errors=source.root.has_error,
    )


def _imports(source: Source) -> Iterator[Import]:
    for node in source.find("(import_spec) @import").get("import", ()):
        path = source.text(node.child_by_field_name("path")).strip('"`')
        name = node.child_by_field_name("name")
        if name is None:
            yield Import(path, "", _package_name(path))
        elif name.type == "dot":
            yield Import(path, "*", "")
        else:
            yield Import(path, "", "" if name.type == "blank_identifier" else source.text(name))


def _package_name(path: str) -> str:
    """What a package is called when nobody says it: most packages are called as their folder."""
    parts = path.split("/")
    last = parts[-2] if len(parts) > 1 and re.match(r"^v\d+$", parts[-1]) else parts[-1]
    return re.sub(r"\.v\d+$|^go-|-go$|\.go$", "", last).replace("-", "_")


def _units(source: Source) -> Iterator[tuple[str, Node]]:
    for node in source.root.named_children:
        if node.type == "function_declaration":
            yield source.text(node.child_by_field_name("name")), node
        elif node.type == "method_declaration":
            # A method is its type's.
            receiver = node.child_by_field_name("receiver")
            types = source.find("(type_identifier) @type", receiver).get("type", ()) if receiver else ()
            yield source.text(min(types, key=lambda one: one.start_byte, default=None)), node
        elif node.type in {"type_declaration", "const_declaration", "var_declaration"}:
            query = "(type_spec) @one (type_alias) @one (const_spec) @one (var_spec) @one"
            for one in source.find(query, node).get("one", ()):
                for name in one.children_by_field_name("name"):
                    if name.is_named:  # the commas have the field too
                        yield source.text(name), one
