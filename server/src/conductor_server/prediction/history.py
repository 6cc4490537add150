"""What recent builds say without a model: those of the pipeline, else those of its repository."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import PIPELINE_BUILDS, REPOSITORY_BUILDS, View
from conductor_server.prediction.answers import Estimate
from conductor_server.prediction.columns import Question

HISTORY_VIEWS: tuple[View, ...] = (PIPELINE_BUILDS, REPOSITORY_BUILDS)
"""Read for every request, whatever its model takes."""

_ERROR_COVERAGE = 0.9
_MAXIMUM_AGE_US = [int(view.maximum_age.total_seconds() * 1e6) for view in HISTORY_VIEWS]
_PIPELINE_MEDIAN = PIPELINE_BUILDS.field_index["median_duration_15"]
_PIPELINE_ERROR = PIPELINE_BUILDS.field_index["relative_error_50"]
_PIPELINE_LOWER = PIPELINE_BUILDS.field_index["lower_duration_30"]
_PIPELINE_UPPER = PIPELINE_BUILDS.field_index["upper_duration_30"]
_REPOSITORY_MEDIAN = REPOSITORY_BUILDS.field_index["median_duration_30"]
_REPOSITORY_LOWER = REPOSITORY_BUILDS.field_index["lower_duration_30"]
_REPOSITORY_UPPER = REPOSITORY_BUILDS.field_index["upper_duration_30"]


def recent_history(question: Question, rows: Sequence[FeatureRow | Missing]) -> Iterator[tuple[Estimate, int]]:
    """Estimates, best first, each with the event time of its row in microseconds.

    Args:
        question: The question.
        rows: The question's rows of ``HISTORY_VIEWS``.
    """
    for row, maximum_age_us, estimate_of in zip(rows, _MAXIMUM_AGE_US, (_pipeline, _repository), strict=True):
        if isinstance(row, Missing):
            continue
        age_us = question.moment_us - row.event_time_us
        if age_us > maximum_age_us or (question.past_only and age_us <= 0):
            continue
        estimate = estimate_of(row.values.tolist())
        if estimate is not None:
            yield estimate, row.event_time_us


def _pipeline(values: Sequence[float]) -> Estimate | None:
    """The median of the latest 15, and how far off such a median was for nine of ten of the builds before."""
    median, error = values[_PIPELINE_MEDIAN], values[_PIPELINE_ERROR]
    if math.isfinite(error) and abs(error) < math.log(1e6):
        return Estimate.checked(median * math.exp(-error), median, median * math.exp(error), _ERROR_COVERAGE)
    return _between(values[_PIPELINE_LOWER], median, values[_PIPELINE_UPPER])


def _repository(values: Sequence[float]) -> Estimate | None:
    return _between(values[_REPOSITORY_LOWER], values[_REPOSITORY_MEDIAN], values[_REPOSITORY_UPPER])


def _between(lower: float, median: float, upper: float) -> Estimate | None:
    """Quantiles of other builds than the median's, stretched to hold it; nothing is claimed for them."""
    if math.isnan(lower) or math.isnan(upper):
        return None
    return Estimate.checked(min(lower, median), median, max(upper, median))
