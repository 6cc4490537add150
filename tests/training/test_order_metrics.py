"""Figures of orders and probabilities, against examples worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from conductor_training.test_failure import metrics
from conductor_training.test_failure.arithmetic import InNumpy
from conductor_training.test_failure.calibration import BetaCalibration, fit_calibration

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
FAILED = np.array([0.0, 1, 0, 0, 1])


def test_apfd_of_an_order() -> None:
    # Failures at places 2 and 5 of 5: 1 − (2 + 5) / (5 · 2) + 1 / 10.
    assert metrics.apfd(SCORES, FAILED) == pytest.approx(0.4)
    assert metrics.best_apfd(FAILED) == pytest.approx(1 - 3 / 10 + 0.1)
    assert metrics.apfd(np.ones(5), FAILED) == pytest.approx(0.5)
    assert np.isnan(metrics.apfd(SCORES, np.zeros(5)))


def test_ties_count_as_the_mean_of_all_their_orders() -> None:
    generator = np.random.default_rng(0)
    scores, failed = generator.integers(0, 3, 8).astype(float), np.array([1.0, 0, 0, 1, 0, 1, 0, 0])
    costs = generator.random(8)
    broken = [scores + generator.random(8) * 1e-6 for _ in range(1_000)]
    for ours, orders in (
        (metrics.apfd(scores, failed), [metrics.apfd(order, failed) for order in broken]),
        (metrics.apfdc(scores, failed, costs), [metrics.apfdc(order, failed, costs) for order in broken]),
    ):
        assert ours == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / len(orders) ** 0.5)


def test_apfdc_counts_what_was_left_to_spend() -> None:
    costs = np.array([1.0, 2, 3, 4, 10])
    # 19 of 20 are left before the second, whose half counts: 19 − 1; before the last 10 − 5. Of 2 · 20.
    assert metrics.apfdc(SCORES, FAILED, costs) == pytest.approx((18 + 5) / 40)
    assert metrics.apfdc(SCORES, FAILED, np.ones(5)) == pytest.approx(metrics.apfd(SCORES, FAILED))


def test_napfd_finds_nothing_beyond_the_budget() -> None:
    ones = np.ones(5)
    assert metrics.napfd(SCORES, FAILED, ones, 1.0) == pytest.approx(0.4)
    # One of two found, at place 2: 0.5 − 2 / 10 + 0.5 / 10.
    assert metrics.napfd(SCORES, FAILED, ones, 0.6) == pytest.approx(0.35)
    assert metrics.napfd(SCORES, FAILED, ones, 0.2) == 0


def test_gain_goes_from_nothing_to_everything() -> None:
    curve = metrics.gain(SCORES, FAILED, np.ones(5), np.array([0, 0.2, 0.4, 0.8, 1]))
    np.testing.assert_allclose(curve, [0, 0, 0.5, 0.5, 1])


def test_reliability_and_log_loss() -> None:
    said = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    bins = metrics.reliability(said, np.array([0, 0, 0, 1, 1, 1.0]), bins=3)
    np.testing.assert_allclose(bins.probability, [0.1, 0.1, 0.9])
    np.testing.assert_allclose(bins.share, [0, 0.5, 1])
    assert bins.error == pytest.approx((0.1 + 0.4 + 0.1) / 3)
    assert metrics.log_loss(np.array([0.5, 0.25]), np.array([1.0, 0.0])) == pytest.approx(-np.log([0.5, 0.75]).mean())


def test_precision_at_recall() -> None:
    said = np.array([0.9, 0.8, 0.7, 0.6])
    assert metrics.precision_at_recall(said, np.array([1.0, 0, 1, 0]), 0.7) == pytest.approx(2 / 3)
    assert metrics.precision_at_recall(said, np.array([1.0, 0, 1, 0]), 0.5) == 1
    assert np.isnan(metrics.precision_at_recall(said, np.zeros(4), 0.5))


def test_pairs_that_do_not_differ_are_no_difference() -> None:
    same = metrics.paired(np.array([0.1 + 0.2, 1.0]), np.array([0.3, 1.0]))
    assert (same.mean_difference, same.wins, same.losses, same.p_value) == (0, 0, 0, 1)
    # All of eight differ the same way: 2 · 2⁻⁸.
    assert metrics.paired(np.arange(1.0, 9), np.zeros(8)).p_value == pytest.approx(2 / 256)


def test_calibration_finds_the_way_back_and_keeps_the_order() -> None:
    generator = np.random.default_rng(1)
    truth = generator.beta(1, 6, 20_000)
    happened = (generator.random(20_000) < truth).astype(float)
    logit = 2 * np.log(truth / (1 - truth)) + 1.5  # too sure of itself, and shifted
    found = fit_calibration(logit, happened)
    said = found.apply(InNumpy(np.zeros((20_000, 1), np.float32)), logit)
    assert metrics.reliability(said, happened).error < 0.01
    assert (rankdata(said) == rankdata(logit)).all()
    assert fit_calibration(-logit, happened).a >= 0 and fit_calibration(-logit, happened).b >= 0
    assert fit_calibration(logit[:5], happened[:5]) == BetaCalibration()
