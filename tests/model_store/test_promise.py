"""The promise of a selection: at most α of a cycle's failures are missed, in expectation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_model_store.promise import (
    EVERYTHING,
    Reason,
    Threshold,
    adapted_level,
    calibrate,
    least_cycles,
    missed_share,
)

CYCLES = st.lists(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=4).map(np.array), max_size=40)
LOSSES = st.lists(st.floats(0, 1), max_size=30)


def cycle(generator: np.random.Generator) -> np.ndarray:
    """Scores of a cycle's failed tests: good and bad days, several tests."""
    return generator.normal(generator.normal(0, 1), 1, generator.integers(1, 6))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_exchangeable_cycles_miss_no_more_than_promised(alpha: float) -> None:
    generator = np.random.default_rng(int(alpha * 1000))
    missed = []
    for _ in range(400):
        threshold = calibrate([cycle(generator) for _ in range(120)], alpha)
        new = cycle(generator)
        missed.append(missed_share(new, threshold))
    error = float(np.std(missed)) / len(missed) ** 0.5
    assert np.mean(missed) <= alpha + 3 * error
    assert np.mean(missed) >= alpha / 3 - 3 * error, "nor is it far from it: a promise is no reason to run everything"


@given(CYCLES, st.floats(0.01, 0.5), LOSSES)
def test_the_bound_holds_on_the_calibration_itself_and_no_greater_score_would_do(
    cycles: list[np.ndarray], alpha: float, realised: list[float]
) -> None:
    threshold = calibrate(cycles, alpha, realised)

    def bound(score: float) -> float:
        at = Threshold(score, Reason.CALIBRATED, 0, alpha)
        losses = sum(missed_share(one, at) for one in cycles)
        return (losses + 1) / (len(cycles) + 1)

    assert threshold.level <= alpha
    if threshold.selects_everything:
        assert threshold.reason is not Reason.CALIBRATED
        assert bound(EVERYTHING) > threshold.level - 1e-9 or len(cycles) < least_cycles(alpha)
        return
    assert bound(threshold.score) <= threshold.level + 1e-9
    greater = sorted({score for one in cycles for score in one if score > threshold.score})
    if greater:
        assert bound(greater[0]) > threshold.level - 1e-9


@given(CYCLES, st.floats(0.05, 0.4), st.floats(0.01, 0.4))
def test_a_stricter_promise_never_selects_less(cycles: list[np.ndarray], alpha: float, more: float) -> None:
    assert calibrate(cycles, alpha).score <= calibrate(cycles, alpha + more).score


@pytest.mark.parametrize(("alpha", "least"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1)])
def test_with_too_few_cycles_everything_is_selected_and_said_to_be(alpha: float, least: int) -> None:
    assert least_cycles(alpha) == least
    few = calibrate([np.array([1.0])] * (least - 1), alpha)
    assert few.selects_everything and few.reason is Reason.TOO_FEW_CYCLES and few.cycle_count == least - 1
    enough = calibrate([np.array([1.0])] * least, alpha)
    assert enough.reason is Reason.CALIBRATED and enough.score == 1.0


def test_what_was_missed_too_much_is_made_good() -> None:
    assert adapted_level([], 0.1) == 0.1
    assert adapted_level([0.0] * 50, 0.1) == 0.1, "never above what was promised"
    assert adapted_level([0.3], 0.1) == pytest.approx(0.1 - 0.2 * 0.2)
    assert adapted_level([0.3, 0.0], 0.1) == pytest.approx(0.1 - 0.2 * 0.2 + 0.2 * 0.1)
    assert adapted_level([1.0] * 9, 0.1) == 0
    broken = calibrate([np.array([1.0])] * 30, 0.1, [1.0] * 9)
    assert broken.selects_everything and broken.reason is Reason.PROMISE_WAS_BROKEN


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_under_drift_the_rate_comes_back_to_what_was_promised(seed: int) -> None:
    generator, alpha = np.random.default_rng(seed), 0.1
    past: list[np.ndarray] = []
    realised: list[float] = []
    for number in range(400):
        new = cycle(generator) - number / 40  # scores get worse and worse
        threshold = calibrate(past[-100:], alpha, realised[-100:])
        realised.append(missed_share(new, threshold))
        past.append(new)
    assert np.mean(realised) <= alpha + 0.03


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_a_level_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate([], alpha)
