"""What the models of each predictor may be like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from conductor_features.request_columns import builds, tests
from conductor_features.request_columns.column import Column
from conductor_features.views import TEST_HISTORY, VIEWS, View
from conductor_server.prediction.columns import Subject
from conductor_server.testing.questions import TEST_FAILURE, TEST_FLAKINESS


@dataclass(frozen=True)
class Predictor:
    """What a predictor takes."""

    request_columns: Mapping[str, Column]
    """What its requests tell."""
    views: Mapping[str, View]
    """Views whose rows it reads, by key."""
    answer: Literal["outputs", "probability"]
    """The manifest's field that tells what its models' graphs answer with."""


_OF_BUILDS = {key: view for key, view in VIEWS.items() if set(view.entity) <= set(Subject._fields)}
_OF_TESTS = {key: view for key, view in VIEWS.items() if view.entity == TEST_HISTORY.entity}
_TESTS = Predictor(tests.REQUEST_COLUMNS, _OF_TESTS, "probability")

PREDICTORS: Mapping[str, Predictor] = {
    "build-duration": Predictor(builds.REQUEST_COLUMNS, _OF_BUILDS, "outputs"),
    TEST_FAILURE: _TESTS,
    TEST_FLAKINESS: _TESTS,
}
"""By name."""
