"""Request columns: what is absent is missing, and what is present is counted right."""

from __future__ import annotations

import math

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from conductor.build.v1.build_context_pb2 import BuildContext, BuildTrigger, ChangeSet
from conductor_features.request_columns.builds import (
    REQUEST_COLUMN_NAMES,
    REQUEST_COLUMNS,
    request_columns,
    request_values,
)


def context(**fields: object) -> BuildContext:
    return ParseDict({"repository": "r", "pipeline": "p", **fields}, BuildContext())


def test_an_empty_context_knows_nothing() -> None:
    assert all(math.isnan(value) for value in request_values(BuildContext()))


def test_zero_is_not_missing() -> None:
    full = BuildContext()
    numbers = [field.name for field in ChangeSet.DESCRIPTOR.fields if field.name in REQUEST_COLUMNS]
    for name in numbers:
        setattr(full.change, name, 0)
    columns = request_columns(full)
    assert numbers and {name: columns[name] for name in numbers} == dict.fromkeys(numbers, 0.0)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("is_push", {"trigger": "BUILD_TRIGGER_PUSH"}, 1.0),
        ("is_push", {"trigger": "BUILD_TRIGGER_OTHER"}, 0.0),
        ("is_push", {"trigger": "BUILD_TRIGGER_UNSPECIFIED"}, math.nan),
        ("is_push", {"trigger": 99}, math.nan),
        ("queued_hour", {"queuedTime": "2026-11-21T18:30:00Z"}, 18.0),
        ("queued_hour", {"queuedTime": "1969-12-31T23:59:59Z"}, 23.0),
        ("queued_weekday", {"queuedTime": "2026-11-21T23:59:59Z"}, 5.0),
        ("queued_weekday", {"queuedTime": "2026-11-23T00:00:00Z"}, 0.0),
        ("is_main_branch", {"branch": "Master"}, 1.0),
        ("is_main_branch", {"branch": "feature/main"}, 0.0),
        ("is_bot_actor", {"actor": "dependabot[bot]"}, 1.0),
        ("is_bot_actor", {"actor": "renovate-bot"}, 1.0),
        ("is_bot_actor", {"actor": "octocat"}, 0.0),
        ("modified_file_count", {"change": {"modifiedFileCount": 2}}, 2.0),
        ("modified_file_count", {"change": {"addedFileCount": 2}}, math.nan),
        ("extension_count", {"change": {"fileExtensions": [".py", ".md", ".PY", "rs"]}}, 3.0),
        ("code_extension_count", {"change": {"fileExtensions": [".py", ".md", ".PY", "rs"]}}, 2.0),
        ("docs_extension_count", {"change": {"fileExtensions": [".py", ".md", ".PY", "rs"]}}, 1.0),
        ("yaml_extension_count", {"change": {"fileExtensions": [".py"]}}, 0.0),
        ("yaml_extension_count", {"change": {}}, math.nan),
    ],
)
def test_a_column(name: str, fields: dict[str, object], expected: float) -> None:
    assert request_columns(context(**fields))[name] == pytest.approx(expected, nan_ok=True)


@given(
    trigger=st.sampled_from(BuildTrigger.values()),
    branch=st.text(max_size=9),
    actor=st.text(max_size=9),
    seconds=st.integers(-(10**9), 10**10),
    counts=st.lists(st.integers(0, 2**53), min_size=3, max_size=3),
)
def test_stored_bytes_give_the_same_columns(
    trigger: BuildTrigger.ValueType, branch: str, actor: str, seconds: int, counts: list[int]
) -> None:
    asked = BuildContext(trigger=trigger, branch=branch, actor=actor)
    asked.queued_time.seconds = seconds
    asked.change.added_file_count, asked.change.modified_file_count, asked.change.deleted_file_count = counts
    stored = BuildContext.FromString(asked.SerializeToString())
    assert str(request_values(stored)) == str(request_values(asked))
    assert list(request_columns(asked)) == list(REQUEST_COLUMN_NAMES) == list(REQUEST_COLUMNS)


def test_every_column_says_what_it_is() -> None:
    assert all(column.description and column.unit in {"1", "h", "d"} for column in REQUEST_COLUMNS.values())
