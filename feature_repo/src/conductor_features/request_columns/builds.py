"""Columns of a :class:`BuildContext`. A new column is one more line in :data:`REQUEST_COLUMNS`.

Training computes them from stored contexts and the server from requests, by this code; NaN is missing, and what is
absent from the context is never taken for zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.message import Message

from conductor.build.v1.build_context_pb2 import BuildContext, BuildTrigger
from conductor_features.request_columns.column import Column


class Seen:
    """A build's context, with what several columns ask of it worked out once."""

    __slots__ = ("change", "context", "extension_counts")

    def __init__(self, context: BuildContext) -> None:
        self.context = context
        self.change = context.change
        self.extension_counts = _counts(tuple(self.change.file_extensions))
        """Of the touched files' distinct extensions, by what they say, and of all."""


_Function = Callable[[Seen], float]

_NAN = math.nan
_DAY = 86_400
_MAIN_BRANCHES = frozenset({"main", "master", "develop", "trunk"})
_PUSH = BuildTrigger.BUILD_TRIGGER_PUSH
_KNOWN_TRIGGERS = frozenset(BuildTrigger.values()) - {BuildTrigger.BUILD_TRIGGER_UNSPECIFIED}
_BOT = re.compile(r"\[bot\]|bot$", re.IGNORECASE)

_ALL = "all"
_GROUPS = {
    "code": "f90 c cc cpp h hpp inc rs go zig swift java kt kts scala groovy cs py pyi rb php pl js mjs cjs ts tsx jsx "
    "vue svelte dart sql r m mm asm s ino",
    "web": "css scss less html hbs mustache j2",
    "json": "json json5",
    "yaml": "yml yaml",
    "toml": "toml",
    "lock": "lock sum",
    "build": "gradle xml properties cmake mk bat sh cfg conf in ini env tf tfvars mod bazel bzl",
    "docs": "md txt rst adoc tex pdf",
    "asset": "png svg jpg jpeg webp gif ttf ico",
}
"""Extensions by what they say about a change."""
_EXTENSIONS = {group: frozenset(extensions.split()) for group, extensions in _GROUPS.items()}
_NO_COUNTS: Mapping[str, float] = MappingProxyType(dict.fromkeys((_ALL, *_EXTENSIONS), _NAN))


@dataclass(frozen=True)
class BuildColumn(Column):
    """A column of one context by itself."""

    function: _Function


def _change(field: str) -> _Function:
    def number(seen: Seen) -> float:
        change: Message = seen.change
        return float(getattr(change, field)) if change.HasField(field) else _NAN

    return number


def _push(seen: Seen) -> float:
    trigger = seen.context.trigger
    return float(trigger == _PUSH) if trigger in _KNOWN_TRIGGERS else _NAN


def _hour(seen: Seen) -> float:
    context = seen.context
    return float(context.queued_time.seconds % _DAY // 3600) if context.HasField("queued_time") else _NAN


def _weekday(seen: Seen) -> float:
    context = seen.context
    # 1970-01-01 was a Thursday.
    return float((context.queued_time.seconds // _DAY + 3) % 7) if context.HasField("queued_time") else _NAN


def _main_branch(seen: Seen) -> float:
    branch = seen.context.branch
    return float(branch.lower() in _MAIN_BRANCHES) if branch else _NAN


def _bot_actor(seen: Seen) -> float:
    actor = seen.context.actor
    return float(_BOT.search(actor) is not None) if actor else _NAN


@lru_cache(maxsize=256)
def _counts(extensions: tuple[str, ...]) -> Mapping[str, float]:
    distinct = {extension.lstrip(".").lower() for extension in extensions}
    if not distinct:  # nothing tells an empty list from an unknown one
        return _NO_COUNTS
    counts = {group: float(len(distinct & members)) for group, members in _EXTENSIONS.items()}
    return MappingProxyType({_ALL: float(len(distinct)), **counts})


def _extensions_of(group: str) -> _Function:
    return lambda seen: seen.extension_counts[group]


REQUEST_COLUMNS: Mapping[str, BuildColumn] = MappingProxyType(
    {
        "queued_hour": BuildColumn("Hour of day when it was queued (UTC)", "h", _hour),
        "queued_weekday": BuildColumn("Day when it was queued (UTC), Monday is 0", "d", _weekday),
        "is_push": BuildColumn("Started by a push", "1", _push),
        "is_main_branch": BuildColumn("Branch is main, master, develop or trunk", "1", _main_branch),
        "is_bot_actor": BuildColumn("Started by a bot, going by its name", "1", _bot_actor),
        "modified_file_count": BuildColumn("Files modified", "1", _change("modified_file_count")),
        "added_line_count": BuildColumn("Lines added", "1", _change("added_line_count")),
        "deleted_line_count": BuildColumn("Lines deleted", "1", _change("deleted_line_count")),
        "source_churn_line_count": BuildColumn(
            "Source lines added or deleted", "1", _change("source_churn_line_count")
        ),
        "touched_file_commit_count": BuildColumn(
            "Commits of the same files", "1", _change("touched_file_commit_count")
        ),
        **{
            f"{group}_extension_count": BuildColumn(f"Distinct {group} extensions touched", "1", _extensions_of(group))
            for group in _EXTENSIONS
        },
        "extension_count": BuildColumn("Distinct extensions of the touched files", "1", _extensions_of(_ALL)),
    }
)
"""Request columns by name, in order."""

REQUEST_COLUMN_NAMES: tuple[str, ...] = tuple(REQUEST_COLUMNS)
"""Names in the order of :func:`request_values`."""

_FUNCTIONS = tuple(column.function for column in REQUEST_COLUMNS.values())


def request_values(context: BuildContext) -> list[float]:
    """All request columns in the order of :data:`REQUEST_COLUMN_NAMES`; NaN is missing."""
    seen = Seen(context)
    return [function(seen) for function in _FUNCTIONS]


def request_columns(context: BuildContext) -> dict[str, float]:
    """All request columns by name; NaN is missing."""
    return dict(zip(REQUEST_COLUMN_NAMES, request_values(context), strict=True))
