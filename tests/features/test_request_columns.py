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
    request_values,
)


def context(**fields: object) -> BuildContext:
    return ParseDict({"repository": "r", "pipeline": "p", **fields}, BuildContext())


def request_columns(asked: BuildContext) -> dict[str, float]:
    [values] = request_values([asked]).tolist()
    return dict(zip(REQUEST_COLUMN_NAMES, values, strict=True))


def test_an_empty_context_knows_nothing() -> None:
    assert all(math.isnan(value) for value in request_columns(BuildContext()).values())


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


@st.composite
def contexts(draw: st.DrawFn) -> BuildContext:
    asked = BuildContext(
        trigger=draw(st.sampled_from(BuildTrigger.values())),
        branch=draw(st.text(max_size=9)),
        actor=draw(st.text(max_size=9)),
    )
    if draw(st.booleans()):
        asked.queued_time.seconds = draw(st.integers(-(10**9), 10**10))
    for field in ChangeSet.DESCRIPTOR.fields:
        if field.name in REQUEST_COLUMNS and draw(st.booleans()):
            setattr(asked.change, field.name, draw(st.integers(0, 2**53)))
    asked.change.file_extensions.extend(draw(st.lists(st.sampled_from([".py", "MD", ".toml", ".x"]), max_size=3)))
    return asked


@given(st.lists(contexts(), max_size=4))
def test_builds_together_stored_or_not_give_the_columns_of_each(asked: list[BuildContext]) -> None:
    stored = [BuildContext.FromString(context.SerializeToString()) for context in asked]
    together = request_values(stored)
    assert together.shape == (len(asked), len(REQUEST_COLUMNS))
    assert together.tobytes() == b"".join(request_values([context]).tobytes() for context in asked)


def test_columns_have_the_names_that_models_know() -> None:
    assert list(request_columns(BuildContext())) == list(REQUEST_COLUMN_NAMES) == list(REQUEST_COLUMNS)


def test_every_column_says_what_it_is() -> None:
    assert all(column.description and column.unit in {"1", "h", "d"} for column in REQUEST_COLUMNS.values())
