"""What the models of each predictor may be like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from conductor_features.request_columns import builds
from conductor_features.request_columns.column import Column


@dataclass(frozen=True)
class Predictor:
    """What a predictor takes."""

    request_columns: Mapping[str, Column]
    """What its requests tell."""
    answer: Literal["outputs", "probability"]
    """The manifest's field that tells what its models' graphs answer with."""


PREDICTORS: Mapping[str, Predictor] = {"build-duration": Predictor(builds.REQUEST_COLUMNS, "outputs")}
"""By name."""
