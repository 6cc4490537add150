"""What a path tells of a file: its language, and whether it is a test, generated, somebody else's, …"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_LANGUAGES = {
    "python": "py pyi",
    "java": "java",
    "typescript": "ts tsx mts cts",
    "javascript": "js jsx mjs cjs",
    "go": "go",
    "kotlin": "kt kts",
    "scala": "scala",
    "c": "c h",
    "c++": "cc cpp cxx hpp hh",
    "c#": "cs",
    "rust": "rs",
    "ruby": "rb",
    "php": "php",
    "swift": "swift",
    "shell": "sh bash",
    "sql": "sql",
}
_OF_EXTENSION: Mapping[str, str] = {
    extension: language for language, extensions in _LANGUAGES.items() for extension in extensions.split()
}

_TEST_FILES = {
    "python": re.compile(r"^(?:test_.*|.*_test|tests)\.py$"),
    "java": re.compile(r"^(?:Test.*|.*(?:Test|Tests|TestCase|IT|ITCase|Spec))\.java$"),
    "kotlin": re.compile(r"^(?:Test.*|.*(?:Test|Tests|TestCase|IT|Spec))\.kt$"),
    "go": re.compile(r"^.*_test\.go$"),
}
_SCRIPT_TEST = re.compile(r"(?:^|/)__tests__/.*\.[cm]?[jt]sx?$|\.(?:test|spec|e2e|cy)\.[cm]?[jt]sx?$")
_GENERATED = re.compile(
    r"(?:^|/)(?:generated|__generated__|gen-src|dist|\.next)/"
    r"|_pb2(?:_grpc)?\.pyi?$|\.pb(?:\.gw)?\.go$|(?:^|/)zz_generated[^/]*$|_gen(?:erated)?\.go$|[._-]generated\.[^./]+$"
    r"|\.(?:min|bundle)\.(?:js|css)$|\.(?:map|snap)$"
    r"|(?:^|/)(?:[^/]*\.lock|[^/]*-lock\.(?:json|yaml)|go\.sum|npm-shrinkwrap\.json)$"
)
_VENDORED = re.compile(
    r"(?:^|/)(?:vendor|third[_-]?party|node_modules|bower_components|site-packages|Pods|\.yarn)/", re.IGNORECASE
)
_DOCS = re.compile(
    r"(?:^|/)docs?/|\.(?:md|mdx|rst|adoc|txt|tex|pdf)$|(?:^|/)(?:LICENSE|NOTICE|AUTHORS|CHANGELOG)[^/]*$", re.IGNORECASE
)
_BUILD = re.compile(
    r"(?:^|/)(?:pyproject\.toml|setup\.(?:py|cfg)|requirements[^/]*\.txt|tox\.ini|noxfile\.py|package\.json|pom\.xml"
    r"|go\.(?:mod|sum|work)|[^/]*\.gradle(?:\.kts)?|gradle\.properties|tsconfig[^/]*\.json|jest\.config\.[^/]+"
    r"|Makefile|CMakeLists\.txt|Dockerfile[^/]*|BUILD(?:\.bazel)?|WORKSPACE[^/]*|Jenkinsfile|\.gitlab-ci\.yml"
    r"|[^/]*\.lock|[^/]*-lock\.(?:json|yaml))$|(?:^|/)\.(?:github/workflows|circleci|buildkite)/"
)
_CONFIG = re.compile(r"\.(?:ya?ml|toml|ini|cfg|conf|properties|json5?|xml|env)$|(?:^|/)\.[^/]+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PathFacts:
    """What a path tells. Several may hold."""

    language: str
    """For example ``python``; empty where it is none that is known."""
    test: bool
    generated: bool
    vendored: bool
    docs: bool
    build: bool
    """It says how the code is built, tested or what it depends on: a change may reach any test."""
    config: bool


def facts_of(path: str) -> PathFacts:
    """What a path in a repository tells, its folders separated by ``/``."""
    return _remembered(path) if len(path) <= _MOST_REMEMBERED else _facts_of(path)


def _facts_of(path: str) -> PathFacts:
    build = _BUILD.search(path) is not None
    return PathFacts(
        language=language_of(path),
        test=is_test_path(path),
        generated=_GENERATED.search(path) is not None,
        vendored=_VENDORED.search(path) is not None,
        docs=not build and _DOCS.search(path) is not None,
        build=build,
        config=not build and _CONFIG.search(path) is not None,
    )


_MOST_REMEMBERED = 256
"""Characters. Paths of diffs may have thousands, and nobody asks for such a one again."""
_remembered = lru_cache(maxsize=1 << 14)(_facts_of)


def language_of(path: str) -> str:
    """The language, going by the extension; empty for none that is known."""
    return _OF_EXTENSION.get(path.rpartition("/")[2].rpartition(".")[2].lower(), "")


def is_test_path(path: str) -> bool:
    """Whether pytest, JUnit, Jest or ``go test`` would look for tests in it, by their usual names."""
    language = language_of(path)
    if language in {"typescript", "javascript"}:
        return _SCRIPT_TEST.search(path) is not None
    pattern = _TEST_FILES.get(language)
    return pattern is not None and pattern.match(path.rpartition("/")[2]) is not None
