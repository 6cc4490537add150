"""What files say, by language. A new language is a new module here, listed below, and its resolution in ``modules``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from conductor_features.changes.paths import language_of
from conductor_warehouse.code_graph.facts import FileFacts
from conductor_warehouse.code_graph.languages import go, java, python, scripts

READERS: Mapping[str, Callable[[str, bytes], FileFacts]] = {
    "python": python.read,
    "java": java.read,
    "go": go.read,
    "typescript": scripts.read,
    "javascript": scripts.read,
}


def read_facts(path: str, data: bytes) -> FileFacts:
    """What a file says of itself. It may take long, or end the process, for a file that is made so: see ``parsing``."""
    return READERS[language_of(path)](path, data)
