"""Scores of tests between 0 and 1, written for numpy and for graphs at once: ``m`` is an ``InNumpy`` or a
``GraphBuilder``.

``unknown`` is the score of a test that never ran: how often such tests failed at their first run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from conductor_training.columns import Column
from conductor_training.test_failure.columns import (
    FAILURE_COUNT,
    INDEX,
    LAST_FAILED,
    LATEST,
    RECENT_FAILURES,
    RECENT_RUNS,
    RUN_COUNT,
    SINCE_FAILURE,
    SINCE_RUN,
)
from conductor_warehouse.features.tests import RECENT_HALF_LIFE

Rule = Callable[[Any, float], Any]
LOWEST = 1e-4
"""Scores are kept this far from 0 and 1: beyond, float32 tells nothing apart."""
PRIOR_RUNS = 0.5
"""Weight of ``unknown`` in a rate, in runs."""


def _column(m: Any, which: Column) -> Any:
    return m.column(INDEX[which.name])


def _halved(m: Any, seconds: Any) -> Any:
    """2 to the power of −(age / half-life)."""
    return m.op("Exp", m.op("Mul", seconds, -math.log(2) / RECENT_HALF_LIFE))


def history_sort(m: Any, unknown: float) -> Any:
    """Sort by the latest results, as RETECS' rule does: each counts half of the one after it."""
    return m.or_else(_column(m, LATEST), unknown)


def recent_failures(m: Any, unknown: float) -> Any:
    """What failed last comes first; among the rest, what failed most recently."""
    recency = m.or_else(_halved(m, _column(m, SINCE_FAILURE)), 0.0)
    both = m.op("Mul", m.op("Add", _column(m, LAST_FAILED), recency), 0.5)
    return m.or_else(both, unknown)


def failure_rate(m: Any, unknown: float) -> Any:
    """Share of all results that failed."""
    return _rate(m, _column(m, FAILURE_COUNT), _column(m, RUN_COUNT), unknown)


def decayed_rate(m: Any, unknown: float) -> Any:
    """The same with each result halved every 14 days, until now."""
    kept = m.or_else(_halved(m, _column(m, SINCE_RUN)), 0.0)
    failures, runs = (m.op("Mul", _column(m, which), kept) for which in (RECENT_FAILURES, RECENT_RUNS))
    return _rate(m, failures, runs, unknown)


def history(m: Any, unknown: float) -> Any:
    """The middle of the latest results and of all."""
    return m.op("Mul", m.op("Add", history_sort(m, unknown), failure_rate(m, unknown)), 0.5)


def _rate(m: Any, failures: Any, runs: Any, unknown: float) -> Any:
    return m.op("Div", m.op("Add", failures, PRIOR_RUNS * unknown), m.op("Add", runs, PRIOR_RUNS))


def logit(m: Any, score: Any) -> Any:
    """ln(score / (1 − score)), bounded."""
    kept = m.clip(score, LOWEST, 1 - LOWEST)
    return m.op("Sub", m.op("Log", kept), m.op("Log", m.op("Sub", 1.0, kept)))
