"""Java: packages, imports of classes and of static members, JUnit's and TestNG's annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tree_sitter_java
from tree_sitter import Language, Node

from conductor_warehouse.code_graph.facts import Definition, FileFacts, Import
from conductor_warehouse.code_graph.languages.source import Source, units_of

_LANGUAGE = Language(tree_sitter_java.language())
_BLANKED = "(line_comment) @blank (block_comment) @blank (string_literal) @blank"
_DEFINITIONS = """
(class_declaration) @class (interface_declaration) @class (enum_declaration) @class (record_declaration) @class
(annotation_type_declaration) @class (method_declaration) @function (constructor_declaration) @function
"""
_TYPES = frozenset(
    {"class_declaration", "interface_declaration", "enum_declaration", "record_declaration",
     "annotation_type_declaration"}
)  # fmt: skip
_TEST = re.compile(r"@(?:[\w.]+\.)?(?:Test|ParameterizedTest|RepeatedTest|TestFactory|TestTemplate|Property)\b")


def read(path: str, data: bytes) -> FileFacts:
    """What a Java file says."""
    source = Source(_LANGUAGE, data, _BLANKED)
    imports = list(_imports(source))
    found = [
        (source.text(node.child_by_field_name("name")), node)
        for node in source.root.named_children
        if node.type in _TYPES
    ]
    statics = {one.binding for one in imports if one.binding}
    package = source.find("(package_declaration (_) @name)").get("name", [None])[0]
    return FileFacts(
        package=source.text(package),
        # Types are known by their capitals, in the package or imported; methods only if they are imported.
        units=units_of(source, found, imports, lambda name: name[:1].isupper() or name in statics),
        definitions=tuple(source.definitions(_DEFINITIONS)),
        imports=tuple(imports),
        tests=tuple(_tests(source)),
        syntax_errors=source.root.has_error,
    )


def _imports(source: Source) -> Iterator[Import]:
    for node in source.find("(import_declaration) @import").get("import", ()):
        name = next((child for child in node.named_children if child.type.endswith("identifier")), None)
        text = "".join(source.text(name).split())
        static = any(child.type == "static" for child in node.children)
        if any(child.type == "asterisk" for child in node.children):
            yield Import(text, "*", "")
        else:
            owner, _, last = text.rpartition(".")
            # A static import takes a member; what changes is its class.
            yield Import(text if not static else owner, last if static else "=", last)


def _tests(source: Source) -> Iterator[str]:
    definitions: list[Definition] = source.definitions(_DEFINITIONS)
    lines = {
        source.lines(node): source.text(_modifiers(node))
        for node in source.find("(method_declaration) @method").get("method", ())
    }
    for one in definitions:
        modifiers = lines.get((one.first_line, one.last_line))
        if one.kind == "function" and modifiers is not None:
            name = one.name.rpartition(".")[2]
            if _TEST.search(modifiers) or (re.match(r"test[A-Z_]", name) and "public" in modifiers):
                yield one.name


def _modifiers(node: Node) -> Node | None:
    return next((child for child in node.named_children if child.type == "modifiers"), None)
