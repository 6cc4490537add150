"""TypeScript and JavaScript: modules by path, re-exports, CommonJS."""

from __future__ import annotations

from collections.abc import Iterator

import tree_sitter_typescript
from tree_sitter import Language, Node

from conductor_warehouse.code_graph.facts import FileFacts, Import
from conductor_warehouse.code_graph.languages.source import Source, units_of

_TYPESCRIPT = Language(tree_sitter_typescript.language_typescript())
_TSX = Language(tree_sitter_typescript.language_tsx())
_BLANKED = "(comment) @blank (string_fragment) @blank (regex_pattern) @blank"
_DEFINITIONS = """
(function_declaration) @function (generator_function_declaration) @function (method_definition) @function
(class_declaration) @class (abstract_class_declaration) @class (interface_declaration) @class
(type_alias_declaration) @class (enum_declaration) @class
(variable_declarator value: [(arrow_function) (function_expression)]) @function
"""
_CALLS = """
(call_expression function: [(identifier) (import)] @callee
  arguments: (arguments . (string (string_fragment) @specifier))) @call
"""


def read(path: str, data: bytes) -> FileFacts:
    """What a TypeScript or JavaScript file says."""
    source = Source(_TYPESCRIPT if path.endswith("ts") else _TSX, data, _BLANKED)
    imports = [*_imports(source), *_required(source)]
    bound = {one.binding for one in imports if not one.exported}
    found = [(name, node) for name, node in _units(source) if name not in bound]  # `const a = require(…)` is an import
    names = {name for name, _ in found} | {one.binding for one in imports if one.name}
    taken = [(node.start_byte, node.end_byte) for _, node in found]
    taken += [(n.start_byte, n.end_byte) for n in source.root.named_children if n.type == "import_statement"]
    return FileFacts(
        units=units_of(source, found, imports, names.__contains__),
        definitions=tuple(source.definitions(_DEFINITIONS)),
        imports=tuple(imports),
        references=source.references(source.gaps(taken), imports, names.__contains__),
        syntax_errors=source.root.has_error,
    )


def _imports(source: Source) -> Iterator[Import]:
    for node in source.root.named_children:
        if node.type not in {"import_statement", "export_statement"}:
            continue
        exported = node.type == "export_statement"
        given = node.child_by_field_name("source")
        clauses = source.find("(import_require_clause source: (string (string_fragment) @path))", node).get("path", ())
        specifier = source.text(given)[1:-1] if given else source.text(clauses[0] if clauses else None)
        if not specifier:
            continue
        found = source.find(
            "(import_specifier) @one (export_specifier) @one (namespace_import (identifier) @module)"
            " (namespace_export (identifier) @module) (import_require_clause (identifier) @module)"
            " (import_clause (identifier) @default)",
            node,
        )
        for one in found.get("one", ()):
            name, alias = source.text(one.child_by_field_name("name")), one.child_by_field_name("alias")
            yield Import(specifier, name, source.text(alias) if alias else name, exported)
        for one in found.get("module", ()):
            yield Import(specifier, "", source.text(one), exported)
        for one in found.get("default", ()):
            yield Import(specifier, "default", source.text(one), exported)
        if not found:
            yield Import(specifier, "*" if exported else "", "", exported)


def _required(source: Source) -> Iterator[Import]:
    """``require("./a")`` and ``import("./a")``, wherever they stand, with the names that their results get."""
    found = source.find(_CALLS)
    callees = {node.end_byte: source.text(node) for node in found.get("callee", ())}
    for call, specifier in zip(found.get("call", ()), found.get("specifier", ()), strict=False):
        function = call.child_by_field_name("function")
        if function is None or callees.get(function.end_byte) not in {"require", "import"}:
            continue
        path, holder = source.text(specifier), call.parent
        while holder is not None and holder.type in {"await_expression", "parenthesized_expression"}:
            holder = holder.parent
        name = (
            holder.child_by_field_name("name") if holder is not None and holder.type == "variable_declarator" else None
        )
        if name is not None and name.type == "identifier":
            yield Import(path, "", source.text(name))
        elif name is not None and name.type == "object_pattern":
            for one in name.named_children:
                if one.type == "shorthand_property_identifier_pattern":
                    yield Import(path, source.text(one), source.text(one))
                elif one.type == "pair_pattern":
                    yield Import(
                        path, source.text(one.child_by_field_name("key")), source.text(one.child_by_field_name("value"))
                    )
        else:
            yield Import(path, "", "")


def _units(source: Source) -> Iterator[tuple[str, Node]]:
    for node in source.root.named_children:
        inner = node
        if node.type == "export_statement":
            declared = node.child_by_field_name("declaration")
            if any(child.type == "default" for child in node.children):
                yield "default", node
            elif node.child_by_field_name("source") is None:
                # `export { a as b }`: b is what others name.
                for one in source.find("(export_specifier) @one", node).get("one", ()):
                    alias = one.child_by_field_name("alias")
                    if alias is not None:
                        yield source.text(alias), node
            if declared is None:
                continue
            inner = declared
        name = inner.child_by_field_name("name")
        if name is not None and name.type in {"identifier", "type_identifier"}:
            yield source.text(name), node
        elif inner.type in {"lexical_declaration", "variable_declaration"}:
            for one in inner.named_children:
                name = one.child_by_field_name("name")
                if name is not None and name.type == "identifier":
                    yield source.text(name), node
