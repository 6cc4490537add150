"""From requests and feature rows to a model's input rows, by a plan that is made once when the model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.model.v1.model_manifest_pb2 import InputColumn
from conductor_features.request_columns.builds import Column
from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import View

_ABSENT = "absent"


class ManifestUnfit(ValueError):
    """A manifest asks for what this server does not have."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a prediction is asked for."""

    build: BuildContext
    """With its queued_time."""
    moment_us: int
    """The request's time in microseconds since the epoch: when the build was queued."""
    past_only: bool
    """The caller named that time: rows as of that time or later are not used. Otherwise "now" is whenever we look."""
    contribution_count: int = 0


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


@dataclass(frozen=True, slots=True)
class FeaturesUsed:
    """What the feature rows of one question were."""

    missing: tuple[str, ...]
    """``view.field`` of the columns whose row was absent, unreadable or too old."""
    degraded: bool
    """Whether the model lacks what it should have: all of the above but absent or old rows of nullable columns."""
    uncalibrated: bool
    """Whether it lacks something in a way that training did not see, so that the interval's claim is off."""
    oldest_us: int | None
    """Event time of the oldest row that was used."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input rows of some questions."""

    values: NDArray[np.float64]
    """``[n, columns]`` as gathered; NaN is missing."""
    inputs: NDArray[np.float32]
    """The same as the graph takes them, defaults filled in."""
    answerable: NDArray[np.bool_]
    """``[n]``: every required column is there."""
    used: list[FeaturesUsed]
    """By question."""


@dataclass(frozen=True)
class ColumnPlan:
    """How a model's input rows are gathered."""

    names: tuple[str, ...]
    requests: tuple[tuple[int, Column], ...]
    """Position and definition of each request column."""
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
                    definition = request_columns.get(column.request_column)
                    if definition is None:
                        raise ManifestUnfit(f"request column {column.request_column!r} is not known")
                    requests.append((position, definition))
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

    def gather(
        self, questions: Sequence[Question], rows: Sequence[Sequence[FeatureRow | Missing]], positions: Sequence[int]
    ) -> Inputs:
        """Input rows of questions.

        Args:
            questions: n questions.
            rows: For each question, its feature rows.
            positions: Where the row of each of the plan's views stands among a question's rows.
        """
        values = np.full((len(questions), len(self.names)), math.nan)
        used = []
        for at, (question, of_question) in enumerate(zip(questions, rows, strict=True)):
            target = values[at]
            for column, definition in self.requests:
                target[column] = definition.function(question.build)
            used.append(self._features(target, question, [of_question[position] for position in positions]))
        with np.errstate(over="ignore"):
            inputs = values.astype(np.float32)
        inputs[~np.isfinite(inputs)] = math.nan  # no infinity reaches a graph, whoever sent or stored it
        if self.any_default:
            np.copyto(inputs, self.defaults, where=np.isnan(inputs))
        answerable = np.logical_not(np.isnan(inputs[:, self.required]).any(axis=1))
        return Inputs(values, inputs, answerable, used)

    def _features(
        self, target: NDArray[np.float64], question: Question, rows: list[FeatureRow | Missing]
    ) -> FeaturesUsed:
        missing: tuple[str, ...] = ()
        degraded = uncalibrated = False
        oldest_us: int | None = None
        for columns, row in zip(self.views, rows, strict=True):
            if isinstance(row, Missing):
                missing += columns.names
                unreadable = row.reason != _ABSENT
                degraded |= unreadable or not columns.all_nullable
                uncalibrated |= unreadable
                continue
            age_us = question.moment_us - row.event_time_us
            if question.past_only and age_us <= 0:
                missing += columns.names
                degraded = uncalibrated = True
                continue
            found = row.values[columns.fields]
            if columns.any_elapsed:
                seconds = question.moment_us / 1e6 - found
                found = np.where(columns.elapsed, seconds, found)
            if age_us > columns.least_maximum_age_us:
                old = age_us > columns.maximum_age_us
                found[old] = math.nan
                missing += tuple(name for name, is_old in zip(columns.names, old, strict=True) if is_old)
                if not columns.nullable[old].all():
                    degraded = uncalibrated = True
                if old.all():
                    continue
            target[columns.columns] = found
            oldest_us = row.event_time_us if oldest_us is None else min(oldest_us, row.event_time_us)
        return FeaturesUsed(missing, degraded, uncalibrated, oldest_us)


def entity(view: View, tenant_id: str, build: BuildContext) -> tuple[str, ...]:
    """The entity of a view that a build belongs to."""
    return (tenant_id, *[getattr(build, key) for key in view.entity[1:]])


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
