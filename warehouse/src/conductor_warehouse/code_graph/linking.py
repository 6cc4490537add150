"""Makes one graph of what all files say: who names whom, resolved to files and their units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conductor_features.changes.impact_graph import Edges, ImpactGraph
from conductor_features.changes.locating_tests import key_of, words_of
from conductor_features.changes.paths import is_test_path, language_of
from conductor_warehouse.code_graph.facts import FileFacts, Import
from conductor_warehouse.code_graph.modules import Modules

_MOST_STARS = 20
"""So far are chains of ``import *`` followed."""


@dataclass(frozen=True)
class ImportLink:
    """An import and where it leads."""

    path: str
    specifier: str
    target_path: str | None
    """None: it is not of this repository, or was not found."""
    is_local: bool
    """Whether it is of this repository, as far as can be told."""


@dataclass(frozen=True)
class Linked:
    """The graph, and what it was made of."""

    graph: ImpactGraph
    imports: Sequence[ImportLink]


def link(
    facts: Mapping[str, FileFacts], build_files: Mapping[str, bytes], *, commit: str = "", test_id_prefix: str = ""
) -> Linked:
    """The graph of a repository.

    Args:
        facts: what each file of code says, by path.
        build_files: contents of ``go.mod``, ``package.json`` and ``tsconfig.json``, by path.
        commit: what it is of.
        test_id_prefix: what stands before all test ids.
    """
    linker = _Linker(facts, Modules(facts, build_files))
    linker.link_all()
    return Linked(linker.graph(commit, test_id_prefix), linker.imports)


class _Linker:
    def __init__(self, facts: Mapping[str, FileFacts], modules: Modules) -> None:
        self._paths = sorted(facts)
        self._facts = [facts[path] for path in self._paths]
        self._modules = modules
        self._index = {path: index for index, path in enumerate(self._paths)}
        self._unit_file: list[int] = []
        self._unit_lines: list[tuple[int, int]] = []
        self._unit_names: list[str] = []
        self._named: list[dict[str, list[int]]] = []
        """Of each file: by name, the nodes that mean it."""
        self._nodes: list[list[int]] = []
        """Of each file: its units' nodes, in their order."""
        self._bound: list[dict[str, list[Import]]] = []
        self._stars: list[list[Import]] = []
        self._handed_on: dict[tuple[int, str], int] = {}
        self._scopes: dict[tuple[str, ...], dict[str, list[int]]] = {}
        self._resolved: dict[tuple[int, Import], Sequence[int]] = {}
        self._within: list[tuple[int, int]] = []
        self._across: list[tuple[int, int]] = []
        self._imports: set[tuple[int, int]] = set()
        self.imports: list[ImportLink] = []
        for file, one in enumerate(self._facts):
            self._add_names(file, one)

    def link_all(self) -> None:
        """Resolve every import and every name."""
        for file in range(len(self._paths)):
            self._link_imports(file)
        for file in range(len(self._paths)):
            self._link_names(file)

    def graph(self, commit: str, test_id_prefix: str) -> ImpactGraph:
        """All of it, as arrays."""
        count = len(self._paths) + len(self._unit_file)
        imports = self._imports | {(self._file(one), self._file(other)) for one, other in self._across}
        return ImpactGraph(
            paths=self._paths,
            is_test=np.array([self._is_test(file) for file in range(len(self._paths))], bool),
            unit_file=np.array(self._unit_file, np.int32),
            unit_lines=np.array(self._unit_lines, np.int32).reshape(-1, 2),
            unit_names=self._unit_names,
            importers=Edges.of(len(self._paths), _pairs((one, other) for one, other in imports if one != other)),
            within=Edges.of(count, _pairs(self._within)),
            across=Edges.of(count, _pairs(self._across)),
            test_keys=self._test_keys(),
            test_id_prefix=test_id_prefix,
            commit=commit,
        )

    def _is_test(self, file: int) -> bool:
        path = self._paths[file]
        # In Java the annotation tells, whatever the class is called.
        return is_test_path(path) or (language_of(path) == "java" and bool(self._facts[file].tests))

    def _test_keys(self) -> dict[str, list[int]]:
        keys: dict[str, list[int]] = defaultdict(list)
        for file, path in enumerate(self._paths):
            if self._is_test(file):
                names = {path, path.rpartition(".")[0], *self._modules.names_of(path)}
                for key in {key_of(words_of(name)) for name in names} - {""}:
                    keys[key].append(file)
        return dict(keys)

    def _add_names(self, file: int, one: FileFacts) -> None:
        names: dict[str, list[int]] = defaultdict(list)
        nodes = [self._new_node(file, unit.name, (unit.first_line, unit.last_line)) for unit in one.units]
        for unit, node in zip(one.units, nodes, strict=True):
            names[unit.name].append(node)
        for name, several in names.items():
            if len(several) > 1:
                # Go's type and its methods, overloads: one node for all, else each had edges to each user.
                whole = self._new_node(file, name, (0, -1))
                self._within += [(node, whole) for node in several]
                names[name] = [whole]
        self._named.append(names)
        self._nodes.append(nodes)
        bound: dict[str, list[Import]] = defaultdict(list)
        for each in one.imports:
            if each.binding:
                bound[each.binding].append(each)
        self._bound.append(bound)
        self._stars.append([each for each in one.imports if each.name == "*"])

    def _new_node(self, file: int, name: str, lines: tuple[int, int]) -> int:
        node = len(self._paths) + len(self._unit_file)
        self._unit_file.append(file)
        self._unit_lines.append(lines)
        self._unit_names.append(name)
        self._within.append((node, file))
        return node

    def _file(self, node: int) -> int:
        return node if node < len(self._paths) else self._unit_file[node - len(self._paths)]

    def _files(self, file: int, one: Import) -> Sequence[int]:
        known = self._resolved.get((file, one))
        if known is None:
            found = self._modules.resolve(self._paths[file], one)
            known = [self._index[path] for path in found or ()]
            self._resolved[file, one] = known
        return known

    def _link_imports(self, file: int) -> None:
        path = self._paths[file]
        told: set[tuple[str, str | None]] = set()
        mentioned = {
            name
            for names in (self._facts[file].references, *(unit.references for unit in self._facts[file].units))
            for name in names
        }
        for one in self._facts[file].imports:
            targets = self._files(file, one)
            wide = one.name == "*" and language_of(path) == "java"  # what it uses of the package is told by names
            for target in targets if not wide else ():
                self._imports.add((target, file))
            links: list[str | None] = [self._paths[target] for target in targets]
            for target_path in links or [None]:
                if (one.specifier, target_path) not in told:
                    told.add((one.specifier, target_path))
                    local = target_path is not None or self._modules.is_local(path, one)
                    self.imports.append(ImportLink(path, one.specifier, target_path, local))
            if not wide and not any(name == one.binding or name.startswith(f"{one.binding}.") for name in mentioned):
                # For what it does when it is imported; what has no name here may be used anywhere in the file.
                users = [file, *self._nodes[file]] if not one.binding and one.name != "*" else [file]
                self._across += [(target, user) for target in targets if target != file for user in users]

    def _link_names(self, file: int) -> None:
        one = self._facts[file]
        for name in one.references:
            self._link_name(file, file, name)
        for unit, node in zip(one.units, self._nodes[file], strict=True):
            for name in unit.references:
                self._link_name(file, node, name)

    def _link_name(self, file: int, node: int, name: str) -> None:
        for found in self._meant(file, name):
            if found != node:
                (self._within if self._file(found) == file else self._across).append((found, node))

    def _meant(self, file: int, name: str) -> Sequence[int]:
        """Nodes that a name in a file means; none for a name of the language or of elsewhere."""
        parts = name.split(".")
        if own := self._named[file].get(parts[0]):
            return own
        for size in range(len(parts), 0, -1):
            if imports := self._bound[file].get(".".join(parts[:size])):
                further = parts[size] if size < len(parts) else None
                return [node for one in imports for node in self._taken(file, one, further)]
        for one in self._stars[file]:
            for target in self._files(file, one):
                if found := self._looked_up(target, parts[0]):
                    return found
        return self._in_scope(file, parts[0])

    def _in_scope(self, file: int, name: str) -> Sequence[int]:
        scope = tuple(self._modules.scope(self._paths[file]))
        if not scope:
            return ()
        names = self._scopes.get(scope)
        if names is None:
            names = defaultdict(list)
            for path in scope:
                for each, nodes in self._named[self._index[path]].items():
                    names[each].extend(nodes)
            self._scopes[scope] = names
        return names.get(name, ())

    def _taken(self, file: int, one: Import, further: str | None) -> list[int]:
        """Nodes that an import's binding means; ``further``: the name after it."""
        targets = self._files(file, one)
        path = self._paths[file]
        name: str | None = one.name
        if one.name == "=":  # Java: the class itself
            name = one.binding
        elif not one.name or (language_of(path) == "python" and self._is_module(targets, one)):
            name = further
        found = [node for target in targets for node in self._looked_up(target, name)] if name else []
        return found or list(targets)

    def _is_module(self, targets: Sequence[int], one: Import) -> bool:
        """Whether ``from a import b`` took the module a.b."""
        parts = self._paths[targets[0]].rpartition(".")[0].split("/") if targets else [""]
        last = parts[-2] if parts[-1] == "__init__" and len(parts) > 1 else parts[-1]
        return last == one.name and one.name not in self._named[targets[0]] if targets else False

    def _looked_up(self, file: int, name: str, seen: frozenset[int] = frozenset()) -> Sequence[int]:
        """Nodes that others mean by a name of this file."""
        if own := self._named[file].get(name):
            return own
        handed_on = self._handed_on.get((file, name))
        if handed_on is not None:
            return [handed_on]
        imports = [one for one in self._bound[file].get(name, ()) if one.exported]
        if imports:
            node = self._new_node(file, name, (0, -1))
            self._handed_on[file, name] = node
            for one in imports:
                self._across += [(each, node) for each in self._taken(file, one, None) if self._file(each) != file]
            return [node]
        if len(seen) < _MOST_STARS:
            for one in self._stars[file]:
                for target in self._files(file, one) if one.exported else ():
                    if target not in seen and (found := self._looked_up(target, name, seen | {file})):
                        return found
        return ()


def _pairs(
    pairs: Iterator[tuple[int, int]] | Sequence[tuple[int, int]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(list(pairs), np.int64).reshape(-1, 2)
