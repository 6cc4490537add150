"""When a test counts as flaky, and when no longer: the rules, for the fold that keeps the state and for who reads it.

A test's run is *mixed* if it failed and passed in it: the code was the same. A test becomes *active* at a failure, by
one of two rules (:func:`becomes_active`), and stays so until it has passed for long enough (:func:`is_over`). That
happens as time passes, and no row is written then: whoever reads a row says what the test is (:func:`state_of`).
docs/flaky-tests.md gives the reasons.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_DAY = 86_400.0
MIXED_RUNS_WITHIN_SECONDS = 30 * _DAY
"""Two mixed runs no further apart than this are no accident."""
LEAST_RUNS = 40
"""Executed results before the rate of flips says anything: until then its first flips weigh too much."""
LEAST_FLIP_RATE = 0.3
"""Of the latest twenty results or so: a change that breaks a test and one that mends it make two flips."""
FIXED_AFTER_RUNS = 20
"""Results in a row that passed."""
FIXED_AFTER_SECONDS = 14 * _DAY
"""After its last failure."""


class TestState(IntEnum):
    """What a test is; values as in the contract's ``FlakyState``."""

    __test__ = False

    NOT_FLAKY = 0
    ACTIVE = 1
    QUARANTINED = 2
    FIXED = 3


def becomes_active(
    mixed: Mask, seconds_since_mixed: Array, activation_count: Array, run_count: Array, flip_rate: Array
) -> Mask:
    """Whether tests that fail are flaky from now on.

    Args:
        mixed: they passed in this run as well.
        seconds_since_mixed: since the mixed run before this one; NaN for none.
        activation_count: how often they have become active before.
        run_count: executed results.
        flip_rate: ``flip_rate_20`` of ``test_history``.
    """
    on_equal_code = mixed & ((seconds_since_mixed <= MIXED_RUNS_WITHIN_SECONDS) | (activation_count > 0))
    to_and_fro: Mask = (run_count >= LEAST_RUNS) & (flip_rate >= LEAST_FLIP_RATE)
    return on_equal_code | to_and_fro


def is_over(runs_since_failure: Array, seconds_since_failure: Array) -> Mask:
    """Whether tests that were active have passed for long enough."""
    over: Mask = (runs_since_failure >= FIXED_AFTER_RUNS) & (seconds_since_failure >= FIXED_AFTER_SECONDS)
    return over


def is_open(last_failure: Array, last_active_failure: Array) -> Mask:
    """Whether their latest failure was one of an active test: else it ceased to be flaky before that."""
    opened: Mask = last_active_failure == last_failure
    return opened


def is_quarantined(quarantined: Array, released: Array) -> Mask:
    """Whether tests are quarantined, by when they were quarantined and released last; NaN for never."""
    is_in: Mask = ~np.isnan(quarantined) & ~(released >= quarantined)
    return is_in


def fixed_time(last_active_failure: float) -> float:
    """Since when a test that is fixed counts as fixed: when the days after the last failure were over."""
    return last_active_failure + FIXED_AFTER_SECONDS


def is_fixed(last_failure: Array, last_active_failure: Array, runs_since_failure: Array, moment: float) -> Mask:
    """Whether tests that were active once have ceased to be, by a moment.

    Args:
        last_failure: of ``test_flakiness``, in epoch s.
        last_active_failure: the same; NaN for tests that never were active.
        runs_since_failure: of ``test_history``, which has a row for each run.
        moment: in epoch s.
    """
    passed = ~is_open(last_failure, last_active_failure) | is_over(runs_since_failure, moment - last_active_failure)
    return passed & ~np.isnan(last_active_failure)


def state_of(last_active_failure: Array, fixed: Mask, quarantined: Mask) -> NDArray[np.int64]:
    """What tests are, of :class:`TestState`."""
    states = np.where(np.isnan(last_active_failure), TestState.NOT_FLAKY, TestState.ACTIVE)
    states = np.where(fixed, TestState.FIXED, states)
    return np.where(quarantined, TestState.QUARANTINED, states).astype(np.int64)
