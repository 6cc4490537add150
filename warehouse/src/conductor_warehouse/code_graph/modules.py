"""Which file an import means. Files outside of the repository are nobody's: None."""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from conductor_features.changes.paths import language_of
from conductor_warehouse.code_graph.facts import FileFacts, Import

_SOURCE_FOLDERS = frozenset({"src", "lib", "python", "main"})
_EXTENSIONS = (".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mts", ".cts", ".mjs", ".cjs")
_GO_MODULE = re.compile(r"^\s*module\s+\"?([^\s\"]+)", re.MULTILINE)
_ASSET = re.compile(r"\.(?:css|scss|sass|less|svg|png|jpe?g|gif|webp|ico|json|md|html|txt|woff2?|wasm|vue)(?:\?.*)?$")
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|/\*.*?\*/|//[^\n]*', re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


class Modules:
    """Finds files by what languages call them."""

    def __init__(self, facts: Mapping[str, FileFacts], build_files: Mapping[str, bytes]) -> None:
        """``build_files``: by path, ``go.mod``, ``package.json`` and ``tsconfig.json``."""
        self._paths = facts.keys()
        self._facts = facts
        self._python: dict[str, list[str]] = defaultdict(list)
        self._packages: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._folders: dict[str, list[str]] = defaultdict(list)
        self._classes: dict[str, list[str]] = defaultdict(list)
        for path, one in facts.items():
            self._add(path, one)
        self._go_modules = {
            found[1]: posixpath.dirname(path)
            for path, data in build_files.items()
            if path.endswith("go.mod") and (found := _GO_MODULE.search(data.decode("utf-8", "replace")))
        }
        told = {path: _json(data) for path, data in build_files.items() if path.endswith(".json")}
        self._script_packages = {
            one["name"]: posixpath.dirname(path)
            for path, one in told.items()
            if path.endswith("package.json") and isinstance(one.get("name"), str)
        }
        self._script_paths = {
            posixpath.dirname(path): _mappings(posixpath.dirname(path), one)
            for path, one in sorted(told.items())
            if path.endswith("config.json")
        }

    def scope(self, path: str) -> Sequence[str]:
        """Other files whose names a file may use without importing them."""
        language, folder = language_of(path), posixpath.dirname(path)
        if language == "java":
            return self._packages["java", self._facts[path].package]
        if language == "go":
            return self._folders[folder]
        found = []
        if language == "python":
            # pytest gives tests the fixtures of all conftest.py above them.
            while True:
                name = posixpath.join(folder, "conftest.py")
                if name in self._paths and name != path:
                    found.append(name)
                if not folder:
                    break
                folder = posixpath.dirname(folder)
        return found

    def resolve(self, path: str, one: Import) -> Sequence[str] | None:
        """Files that an import of ``path`` takes from; None: none of this repository."""
        language = language_of(path)
        if language == "python":
            return self._resolve_python(path, one)
        if language == "java":
            return self._resolve_java(one)
        if language == "go":
            return self._resolve_go(one.specifier)
        return self._resolve_script(path, one.specifier)

    def is_local(self, path: str, one: Import) -> bool:
        """Whether an import that was not resolved looks as if it meant a file of this repository."""
        language, specifier = language_of(path), one.specifier
        if language in {"typescript", "javascript"}:
            return specifier.startswith(".") and _ASSET.search(specifier) is None
        if language == "go":
            return self._go_folder(specifier) is not None
        if language == "python":
            return specifier.startswith(".") or specifier.split(".")[0] in self._python
        return any(package and specifier.startswith(f"{package}.") for _, package in self._packages)

    def names_of(self, path: str) -> list[str]:
        """What test ids may call a test file, beside its path: dotted, in parts by spaces."""
        language = language_of(path)
        if language == "java":
            return [f"{self._facts[path].package}.{posixpath.basename(path)[:-5]}", posixpath.basename(path)[:-5]]
        if language == "go":
            folder = posixpath.dirname(path)
            return [
                folder or ".",
                *(
                    posixpath.join(module, posixpath.relpath(folder or ".", root or "."))
                    for module, root in self._go_modules.items()
                    if not root or folder == root or folder.startswith(f"{root}/")
                ),
            ]
        return self._dotted(path) if language == "python" else []

    def _add(self, path: str, one: FileFacts) -> None:
        language = language_of(path)
        if language == "python":
            for name in self._dotted(path):
                self._python[name].append(path)
        elif language == "java":
            self._packages["java", one.package].append(path)
            for unit in one.units:
                self._classes[f"{one.package}.{unit.name}" if one.package else unit.name].append(path)
        elif language == "go":
            self._folders[posixpath.dirname(path)].append(path)

    def _dotted(self, path: str) -> list[str]:
        """A Python file's names: from the root, from where its packages begin, and from below ``src`` and the like."""
        parts = path.rpartition(".")[0].split("/")
        if parts[-1] == "__init__":
            parts.pop()
        begins = {0}
        folders = path.split("/")[:-1]
        top = len(folders)
        while top > 0 and f"{'/'.join(folders[:top])}/__init__.py" in self._paths:
            top -= 1
        begins.add(top)
        begins.update(at + 1 for at, name in enumerate(folders) if name in _SOURCE_FOLDERS)
        return [name for begin in sorted(begins) if (name := ".".join(parts[begin:]))]

    def _resolve_python(self, path: str, one: Import) -> Sequence[str] | None:
        specifier = one.specifier
        level = len(specifier) - len(specifier.lstrip("."))
        if level:
            folder = path.split("/")[:-level]
            if len(path.split("/")) < level:
                return None
            base = [*folder, *filter(None, specifier[level:].split("."))]
            named = self._at("/".join([*base, one.name])) if one.name not in ("", "*") else None
            found = named or self._at("/".join(base))
            return [found] if found else None
        if one.name not in ("", "*") and (files := self._python.get(f"{specifier}.{one.name}")):
            return [_nearest(path, files)]
        files = self._python.get(specifier)
        return [_nearest(path, files)] if files else None

    def _at(self, path: str) -> str | None:
        for name in (f"{path}.py", f"{path}/__init__.py" if path else "__init__.py", f"{path}.pyi"):
            if name in self._paths:
                return name
        return None

    def _resolve_java(self, one: Import) -> Sequence[str] | None:
        if one.name == "*" and (files := self._packages.get(("java", one.specifier))):
            return files
        parts = one.specifier.split(".")
        while len(parts) > 1 or (parts and parts[0] in self._classes):
            if files := self._classes.get(".".join(parts)):
                return files
            parts.pop()  # a nested class, or a static import of all members
        return None

    def _go_folder(self, specifier: str) -> str | None:
        for module, root in sorted(self._go_modules.items(), key=lambda one: -len(one[0])):
            if specifier == module or specifier.startswith(f"{module}/"):
                return posixpath.normpath(posixpath.join(root, specifier[len(module) + 1 :])).removeprefix(".")
        return None

    def _resolve_go(self, specifier: str) -> Sequence[str] | None:
        folder = self._go_folder(specifier)
        files = (
            [one for one in self._folders.get(folder, ()) if not one.endswith("_test.go")] if folder is not None else ()
        )
        return files or None

    def _resolve_script(self, path: str, specifier: str) -> Sequence[str] | None:
        if specifier.startswith("."):
            found = self._script(posixpath.normpath(posixpath.join(posixpath.dirname(path), specifier)))
            return [found] if found else None
        folder = posixpath.dirname(path)
        while True:
            for pattern, targets in self._script_paths.get(folder, ()):
                head, star, tail = pattern.partition("*")
                fits = (
                    specifier.startswith(head) and specifier.endswith(tail) and len(specifier) >= len(head) + len(tail)
                )
                if fits if star else specifier == pattern:
                    middle = specifier[len(head) : len(specifier) - len(tail)] if star else ""
                    for target in targets:
                        if found := self._script(posixpath.normpath(target.replace("*", middle))):
                            return [found]
            if not folder:
                break
            folder = posixpath.dirname(folder)
        return self._resolve_workspace(specifier)

    def _resolve_workspace(self, specifier: str) -> Sequence[str] | None:
        """A package of the same repository, by its name in ``package.json``."""
        parts = specifier.split("/")
        size = 2 if specifier.startswith("@") else 1
        root = self._script_packages.get("/".join(parts[:size]))
        if root is None:
            return None
        rest = "/".join(parts[size:])
        for base in (posixpath.join(root, "src", rest), posixpath.join(root, rest)):
            if found := self._script(posixpath.normpath(base)):
                return [found]
        return None

    def _script(self, base: str) -> str | None:
        # TypeScript's `./a.js` means a.ts.
        stem, dot, extension = base.rpartition(".")
        stems = [base, *([stem] if dot and f".{extension}" in _EXTENSIONS else [])]
        for one in stems:
            for name in (*(one + end for end in ("", *_EXTENSIONS)), *(f"{one}/index{end}" for end in _EXTENSIONS)):
                if name in self._paths and language_of(name) in {"typescript", "javascript"}:
                    return name
        return None


def _nearest(path: str, files: Sequence[str]) -> str:
    """Of files that are called the same, the one that shares most folders."""
    return max(files, key=lambda one: (len(posixpath.commonprefix([path, one])), -len(one), one))


def _json(data: bytes) -> dict[str, Any]:
    text = data.decode("utf-8", "replace")
    for attempt in (text, _TRAILING_COMMA.sub(r"\1", _COMMENT.sub(lambda found: found[1] or "", text))):
        try:
            found = json.loads(attempt)
        except (ValueError, RecursionError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _mappings(folder: str, config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """``compilerOptions.paths`` and ``baseUrl`` as patterns and their targets."""
    options = config.get("compilerOptions")
    if not isinstance(options, dict):
        return []
    base = options.get("baseUrl")
    base = posixpath.normpath(posixpath.join(folder, base)) if isinstance(base, str) else None
    paths = options.get("paths")
    found = [
        (pattern, [posixpath.join(base or folder, one) for one in targets if isinstance(one, str)])
        for pattern, targets in (paths.items() if isinstance(paths, dict) else ())
        if isinstance(targets, list)
    ]
    return [*found, ("*", [posixpath.join(base, "*")])] if base is not None else found
