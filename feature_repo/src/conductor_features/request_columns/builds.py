"""Columns of a :class:`BuildContext`. They stand in groups, each with the function that tells its values.

Training computes them from stored contexts and the server from requests, by this code; NaN is missing, and what is
absent from the context is never taken for zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conductor.build.v1.build_context_pb2 import BuildContext, BuildTrigger
from conductor_features.request_columns.column import Column

_NAN = math.nan

_QUEUED = {
    "queued_hour": Column("Hour of day when it was queued (UTC)", "h"),
    "queued_weekday": Column("Day when it was queued (UTC), Monday is 0", "d"),
}
_DAY = 86_400


def _queued(context: BuildContext) -> Sequence[float]:
    seconds = context.queued_time.seconds
    if not seconds and not context.HasField("queued_time"):
        return (_NAN, _NAN)
    # 1970-01-01 was a Thursday.
    return (float(seconds % _DAY // 3600), float((seconds // _DAY + 3) % 7))


_STARTED = {
    "is_push": Column("Started by a push", "1"),
    "is_main_branch": Column("Branch is main, master, develop or trunk", "1"),
    "is_bot_actor": Column("Started by a bot, going by its name", "1"),
}
_IS_PUSH = {
    trigger: float(trigger == BuildTrigger.BUILD_TRIGGER_PUSH)
    for trigger in BuildTrigger.values()
    if trigger != BuildTrigger.BUILD_TRIGGER_UNSPECIFIED
}
_MAIN_BRANCHES = frozenset({"main", "master", "develop", "trunk"})
_BOT = re.compile(r"\[bot\]|bot$", re.IGNORECASE)


def _started(context: BuildContext) -> Sequence[float]:
    branch, actor = context.branch, context.actor
    return (
        _IS_PUSH.get(context.trigger, _NAN),
        float(branch.lower() in _MAIN_BRANCHES) if branch else _NAN,
        float(_BOT.search(actor) is not None) if actor else _NAN,
    )


_CHANGED = {
    "modified_file_count": Column("Files modified", "1"),
    "added_line_count": Column("Lines added", "1"),
    "deleted_line_count": Column("Lines deleted", "1"),
    "source_churn_line_count": Column("Source lines added or deleted", "1"),
    "touched_file_commit_count": Column("Commits of the same files", "1"),
}
"""Counts of the change, by its fields."""
_COUNTS = attrgetter(*_CHANGED)


def _changed(change: Any) -> Sequence[float]:
    # Whether a count is there is asked only of zeros.
    is_there, counts = change.HasField, zip(_CHANGED, _COUNTS(change), strict=True)
    return [float(count) if count or is_there(name) else _NAN for name, count in counts]


_EXTENSIONS = {
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
_TOUCHED = {
    **{f"{group}_extension_count": Column(f"Distinct {group} extensions touched", "1") for group in _EXTENSIONS},
    "extension_count": Column("Distinct extensions of the touched files", "1"),
}
_GROUPS = [frozenset(extensions.split()) for extensions in _EXTENSIONS.values()]
_NONE_TOUCHED = (_NAN,) * len(_TOUCHED)


@lru_cache(maxsize=256)
def _touched(extensions: Sequence[str]) -> Sequence[float]:
    distinct = {extension.lstrip(".").lower() for extension in extensions}
    if not distinct:  # nothing tells an empty list from an unknown one
        return _NONE_TOUCHED
    return (*(float(len(distinct & group)) for group in _GROUPS), float(len(distinct)))


REQUEST_COLUMNS: Mapping[str, Column] = MappingProxyType({**_QUEUED, **_STARTED, **_CHANGED, **_TOUCHED})
"""Request columns by name, in order."""

REQUEST_COLUMN_NAMES: tuple[str, ...] = tuple(REQUEST_COLUMNS)
"""Names in the order of :func:`request_values`."""


def request_values(contexts: Iterable[BuildContext]) -> NDArray[np.float64]:
    """All request columns of builds, ``[builds, columns]``; NaN is missing."""
    rows = [_values(context) for context in contexts]
    return np.array(rows, np.float64).reshape(len(rows), len(REQUEST_COLUMNS))


def _values(context: BuildContext) -> Sequence[float]:
    change = context.change
    return [*_queued(context), *_started(context), *_changed(change), *_touched(tuple(change.file_extensions[:]))]
