"""Where a model's input columns come from: a plan that is made once, when the model is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.model.v1.model_manifest_pb2 import InputColumn
from conductor_features.request_columns.column import Column
from conductor_features.views import View


class ManifestUnfit(ValueError):
    """A manifest asks for what this server does not have."""


class Question(NamedTuple):
    """What a prediction is asked for."""

    build: BuildContext
    """With its queued_time."""
    moment_us: int
    """The request's time in microseconds since the epoch: when the build was queued."""
    past_only: bool
    """The caller named that time: rows as of that time or later are not used. Otherwise "now" is whenever we look."""
    contribution_count: int = 0

    def seconds_since(self, event_time_us: int | None) -> float | None:
        """How old a row of that event time is; None for none."""
        return None if event_time_us is None else max(0.0, (self.moment_us - event_time_us) / 1e6)


class Subject(NamedTuple):
    """Whose builds have their feature rows in common."""

    tenant_id: str
    repository: str
    pipeline: str
    branch: str

    @classmethod
    def of(cls, tenant_id: str, build: BuildContext) -> Self:
        """The subject of a tenant's build."""
        return cls(tenant_id, build.repository, build.pipeline, build.branch)


@dataclass(frozen=True)
class ViewColumns:
    """The columns that come from one feature view, as positions: no name is looked up per request."""

    view: View
    columns: NDArray[np.intp]
    """Positions in the input row."""
    fields: NDArray[np.intp]
    """Positions in the feature row."""
    elapsed: NDArray[np.bool_]
    """Whether the column is the time since the field's moment."""
    any_elapsed: bool
    maximum_age_us: NDArray[np.int64]
    """By column: the older of rows count as missing."""
    least_maximum_age_us: int
    nullable: NDArray[np.bool_]
    """By column: an entity may rightly have no row, or only an old one."""
    all_nullable: bool
    names: tuple[str, ...]
    """``view.field`` by column."""


@dataclass(frozen=True, eq=False)
class ColumnPlan:
    """How a model's input rows are gathered. Models whose plan is the same object are asked together."""

    names: tuple[str, ...]
    requests: tuple[tuple[int, str], ...]
    """Position and name of each request column."""
    views: tuple[ViewColumns, ...]
    defaults: NDArray[np.float32]
    """By column; NaN for none."""
    any_default: bool
    required: NDArray[np.intp]
    typical: NDArray[np.float32]
    """By column; NaN where it has none."""

    @classmethod
    def of(
        cls, inputs: Sequence[InputColumn], views: Mapping[str, View], request_columns: Mapping[str, Column]
    ) -> Self:
        """The plan of a manifest's inputs.

        Raises:
            ManifestUnfit: a column's source is not known here, or a name stands twice.
        """
        if not inputs or len({column.name for column in inputs}) != len(inputs):
            raise ManifestUnfit("input columns must have names of their own")
        requests = []
        by_view: dict[str, list[tuple[int, InputColumn]]] = {}
        for position, column in enumerate(inputs):
            match column.WhichOneof("source"):
                case "request_column":
                    if column.request_column not in request_columns:
                        raise ManifestUnfit(f"request column {column.request_column!r} is not known")
                    requests.append((position, column.request_column))
                case "feature" | "elapsed_since":
                    by_view.setdefault(_feature(column)[0], []).append((position, column))
                case _:
                    raise ManifestUnfit(f"column {column.name!r} has no source")
        defaults = [column.default_value if column.HasField("default_value") else math.nan for column in inputs]
        typical = [column.typical_value if column.HasField("typical_value") else math.nan for column in inputs]
        return cls(
            names=tuple(column.name for column in inputs),
            requests=tuple(requests),
            views=tuple(_view_columns(key, columns, views) for key, columns in by_view.items()),
            defaults=np.array(defaults, np.float32),
            any_default=not all(map(math.isnan, defaults)),
            required=np.array([at for at, column in enumerate(inputs) if column.required], np.intp),
            typical=np.array(typical, np.float32),
        )


def entity(view: View, subject: Subject) -> tuple[str, ...]:
    """The entity of a view that builds of a subject belong to."""
    return _picking(view.entity)(subject)


@lru_cache
def _picking(keys: tuple[str, ...]) -> Callable[[Subject], tuple[str, ...]]:
    """Takes these parts of a subject."""
    positions = [Subject._fields.index(key) for key in keys]
    # By position it takes a tenth of the time; a single one comes as a slice, which is a tuple too.
    return itemgetter(*positions) if len(positions) > 1 else itemgetter(slice(positions[0], positions[0] + 1))


def _feature(column: InputColumn) -> tuple[str, str, bool]:
    elapsed = column.WhichOneof("source") == "elapsed_since"
    source = column.elapsed_since if elapsed else column.feature
    return source.view, source.field, elapsed


def _view_columns(key: str, columns: Sequence[tuple[int, InputColumn]], views: Mapping[str, View]) -> ViewColumns:
    view = views.get(key)
    if view is None:
        raise ManifestUnfit(f"feature view {key!r} is not known")
    fields, elapsed, ages = [], [], []
    view_age_us = int(view.maximum_age.total_seconds() * 1e6)
    for _, column in columns:
        _, field, is_elapsed = _feature(column)
        if field not in view.field_index:
            raise ManifestUnfit(f"feature view {key!r} has no field {field!r}")
        fields.append(view.field_index[field])
        elapsed.append(is_elapsed)
        asked = column.maximum_age.ToMicroseconds() if column.HasField("maximum_age") else view_age_us
        ages.append(min(asked, view_age_us))
    return ViewColumns(
        view=view,
        columns=np.array([position for position, _ in columns], np.intp),
        fields=np.array(fields, np.intp),
        elapsed=np.array(elapsed, np.bool_),
        any_elapsed=any(elapsed),
        maximum_age_us=np.array(ages, np.int64),
        least_maximum_age_us=min(ages),
        nullable=np.array([column.nullable for _, column in columns], np.bool_),
        all_nullable=all(column.nullable for _, column in columns),
        names=tuple(f"{key}.{view.field_names[field]}" for field in fields),
    )
