"""From questions and feature rows to a model's input rows, for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conductor_features.request_columns.builds import REQUEST_COLUMN_NAMES, request_values
from conductor_features.rows import Missing
from conductor_features.tables import RowTable, TableLayout
from conductor_server.prediction.columns import ColumnPlan, Question

_ABSENT = "absent"
_ANY_AGE_US = np.iinfo(np.int64).min


class FeaturesUsed(NamedTuple):
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

    def take(self, at: int) -> Inputs:
        """Those of one question."""
        one = slice(at, at + 1)
        return Inputs(self.values[one], self.inputs[one], self.answerable[one], self.used[one])


class Gatherer:
    """Makes the input rows of models with one plan out of rows that are laid out in one way."""

    def __init__(self, plan: ColumnPlan, layout: TableLayout) -> None:
        self._plan = plan
        self._view_positions = np.array([layout.views.index(part.view) for part in plan.views], np.intp)
        self._request_columns = np.array([position for position, _ in plan.requests], np.intp)
        self._request_values = np.array([REQUEST_COLUMN_NAMES.index(name) for _, name in plan.requests], np.intp)
        self._event_time_words = layout.event_time_words[self._view_positions]
        self._columns = _joined([part.columns for part in plan.views], np.intp)
        self._words = _joined(
            [
                np.array([layout.field_word(view_at, field) for field in part.fields], np.intp)
                for view_at, part in zip(self._view_positions.tolist(), plan.views, strict=True)
            ],
            np.intp,
        )
        self._elapsed = np.flatnonzero(_joined([part.elapsed for part in plan.views], np.bool_))
        self._least_maximum_ages_us = np.array([part.least_maximum_age_us for part in plan.views], np.int64)

    def gather(self, questions: Sequence[Question], table: RowTable) -> Inputs:
        """Input rows of questions.

        Args:
            questions: n questions.
            table: a line of feature rows for each.
        """
        plan = self._plan
        values = np.empty((len(questions), len(plan.names)))  # every column has a source, and is filled in below
        if len(self._request_columns):
            told = request_values([question.build for question in questions])
            values[:, self._request_columns] = told[:, self._request_values]
        used = self._features(values, questions, table)
        return Inputs(values, *graph_inputs(plan, values), used)

    def _features(
        self, values: NDArray[np.float64], questions: Sequence[Question], table: RowTable
    ) -> list[FeaturesUsed]:
        """Fill in what comes from features; says what they were."""
        if not len(self._view_positions):
            return [FeaturesUsed((), False, False, None)] * len(questions)
        moments_us = np.array([question.moment_us for question in questions], np.int64)
        found = table.words[:, self._words]
        if len(self._elapsed):
            found[:, self._elapsed] = (moments_us / 1e6)[:, None] - found[:, self._elapsed]
        values[:, self._columns] = found
        event_times_us = table.words.view(np.int64)[:, self._event_time_words]
        ages_us = moments_us[:, None] - event_times_us
        youngest_us = np.array([0 if question.past_only else _ANY_AGE_US for question in questions], np.int64)
        doubtful = (ages_us > self._least_maximum_ages_us) | (ages_us <= youngest_us[:, None])
        doubtful_lines = {*doubtful.nonzero()[0].tolist(), *(line for line, _ in table.missing)}
        used = [FeaturesUsed((), False, False, oldest) for oldest in event_times_us.min(axis=1).tolist()]
        for line in doubtful_lines:
            used[line] = self._sort_out(values[line], questions[line], table, line)
        return used

    def _sort_out(self, target: NDArray[np.float64], question: Question, table: RowTable, line: int) -> FeaturesUsed:
        """Take out of a row what may not be used, and tell of it."""
        missing: tuple[str, ...] = ()
        degraded = uncalibrated = False
        oldest_us: int | None = None
        for view_at, part in zip(self._view_positions.tolist(), self._plan.views, strict=True):
            row = table.missing.get((line, view_at))
            if isinstance(row, Missing):
                target[part.columns] = math.nan
                missing += part.names
                unreadable = row.reason != _ABSENT
                degraded |= unreadable or not part.all_nullable
                uncalibrated |= unreadable
                continue
            event_time_us = int(table.event_time_us[line, view_at])
            age_us = question.moment_us - event_time_us
            if question.past_only and age_us <= 0:
                target[part.columns] = math.nan
                missing += part.names
                degraded = uncalibrated = True
                continue
            if age_us > part.least_maximum_age_us:
                old = age_us > part.maximum_age_us
                target[part.columns[old]] = math.nan
                missing += tuple(name for name, is_old in zip(part.names, old, strict=True) if is_old)
                if not part.nullable[old].all():
                    degraded = uncalibrated = True
                if old.all():
                    continue
            oldest_us = event_time_us if oldest_us is None else min(oldest_us, event_time_us)
        return FeaturesUsed(missing, degraded, uncalibrated, oldest_us)


def graph_inputs(plan: ColumnPlan, values: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``[n, columns]`` as a graph takes them, and of each row whether every required column is there."""
    with np.errstate(over="ignore"):
        inputs = values.astype(np.float32)
    inputs[np.isinf(inputs)] = math.nan  # no infinity reaches a graph, whoever sent or stored it
    if plan.any_default:
        np.copyto(inputs, plan.defaults, where=np.isnan(inputs))
    if not len(plan.required):
        return inputs, np.full(len(inputs), True)
    return inputs, np.logical_not(np.isnan(inputs[:, plan.required]).any(axis=1))


@lru_cache(maxsize=256)
def gatherer_of(plan: ColumnPlan, layout: TableLayout) -> Gatherer:
    """The same one for all whose plan and layout are the same objects: what they ask is gathered together."""
    return Gatherer(plan, layout)


def _joined(parts: Sequence[NDArray[np.generic]], kind: type) -> NDArray[np.generic]:
    return np.concatenate([*parts, np.empty(0, kind)]).astype(kind)
