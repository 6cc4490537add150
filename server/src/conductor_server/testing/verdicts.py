"""What one failure was: what its test's past says, corrected by what happened in this run.

The probability that it is flaky, given the past, is the model's, which is calibrated. What happened in the run
multiplies odds by factors that are judgement and not learnt, as are the odds of the infrastructure.
docs/flaky-tests.md gives the reasons for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from conductor_server.testing.answers import FlakyStatus, NextStep, Verdict
from conductor_server.testing.infrastructure import matching
from conductor_server.testing.questions import Failure

FAILS_AGAIN = 0.4
"""Probability that a flaky failure fails again when it is tried again at once."""
INFRASTRUCTURE_ODDS = 0.02
"""Before anything is known of the failure."""
MASS_SHARE, MASS_COUNT = 0.3, 10
"""Many tests that fail at once: at least this share of the run's tests, and so many."""
MASS_ODDS = 5.0
"""Of the infrastructure, where many fail at once."""
MASS_FLAKY_FACTOR = 0.2
"""Of flaky against real then: tests that are flaky are so one by one."""
LONG_FACTOR, LONG_SECONDS, LONG_ODDS = 5.0, 10.0, 2.0
"""A failure that took so many times as long as the test does, and so much longer; the infrastructure's odds then."""
LEAST = 0.5
"""A verdict is likelier than not; else it can't be told."""
OFTEN = 0.05
"""Share of its latest results that an unstable test fails in for quarantine to be worth it."""


@dataclass(frozen=True)
class Past:
    """What is known of the test beside the failure."""

    flaky_probability: float
    state: FlakyStatus
    usual_seconds: float
    """NaN where it is not known."""
    failed_before: bool
    """It failed when it ran last."""
    failure_rate: float
    """Of its latest results, fading; NaN where it is not known."""
    is_reached: bool
    """The change reaches it."""


@dataclass(frozen=True)
class Judgement:
    """Probabilities, with what moved them."""

    real: float
    flaky: float
    infrastructure: float
    evidence: tuple[tuple[float, str], ...]
    """How telling each is, the larger the more, and what it says."""

    @property
    def verdict(self) -> Verdict:
        """The likeliest, if that is likelier than not."""
        told = {Verdict.REAL: self.real, Verdict.FLAKY: self.flaky, Verdict.INFRASTRUCTURE: self.infrastructure}
        best = max(told, key=told.__getitem__)
        return best if told[best] > LEAST else Verdict.UNKNOWN


def judge(failure: Failure, past: Past) -> Judgement:
    """What a failure was."""
    evidence = [*_of_attempts(failure), *_of_the_run(failure), *_of_infrastructure(failure, past)]
    flaky, real = past.flaky_probability, 1 - past.flaky_probability
    odds = INFRASTRUCTURE_ODDS
    for one in evidence:
        flaky, real, odds = flaky * one.flaky_factor, real * one.real_factor, odds * one.infrastructure_factor
    # A test that passed again is flaky, however sure the model was of the contrary.
    share = flaky / (flaky + real) if flaky + real > 0 else 1.0
    infrastructure = odds / (1 + odds)
    return Judgement(
        (1 - share) * (1 - infrastructure),
        share * (1 - infrastructure),
        infrastructure,
        tuple((one.weight, one.says) for one in evidence),
    )


def next_step(failure: Failure, past: Past, judgement: Judgement) -> NextStep:
    """The cheapest thing that would tell more, or mend it."""
    verdict = judgement.verdict
    if verdict is Verdict.INFRASTRUCTURE:
        return NextStep.RERUN_JOB
    if (failure.attempt_count or 1) < 2:
        return NextStep.RERUN_TEST
    if verdict is Verdict.FLAKY:
        often = past.state is FlakyStatus.ACTIVE or past.failure_rate >= OFTEN
        return NextStep.QUARANTINE if often and past.state is not FlakyStatus.QUARANTINED else NextStep.NONE
    if past.failed_before:
        return NextStep.BISECT
    return NextStep.INSPECT_CHANGE if past.is_reached else NextStep.NONE


@dataclass(frozen=True)
class _Evidence:
    """Something that happened, and by how much it multiplies what."""

    says: str
    flaky_factor: float = 1.0
    real_factor: float = 1.0
    infrastructure_factor: float = 1.0

    @property
    def weight(self) -> float:
        factors = (self.flaky_factor, self.real_factor, self.infrastructure_factor)
        return max(abs(math.log(max(factor, 1e-9))) for factor in factors)


def _of_attempts(failure: Failure) -> Iterator[_Evidence]:
    attempts, passed = failure.attempt_count or 1, failure.passed_attempt_count or 0
    if passed > 0:
        yield _Evidence(
            f"It passed at {passed} of {attempts} attempts in this run, with the code as it was (rule passed-again).",
            real_factor=0.0,
        )
    elif attempts > 1:
        factor = FAILS_AGAIN ** (attempts - 1)
        yield _Evidence(
            f"All {attempts} attempts failed; what is flaky fails again at {FAILS_AGAIN:.0%} of attempts"
            f" (rule failed-again, odds of flaky × {factor:.2g}).",
            flaky_factor=factor,
        )


def _of_the_run(failure: Failure) -> Iterator[_Evidence]:
    failed, executed = failure.failed_test_count, failure.executed_test_count
    if failed is not None and executed and failed >= MASS_COUNT and failed / executed >= MASS_SHARE:
        yield _Evidence(
            f"{failed} of the run's {executed} tests failed at once (rule many-at-once, odds of infrastructure"
            f" × {MASS_ODDS:g}, of flaky × {MASS_FLAKY_FACTOR:g}).",
            flaky_factor=MASS_FLAKY_FACTOR,
            infrastructure_factor=MASS_ODDS,
        )


def _of_infrastructure(failure: Failure, past: Past) -> Iterator[_Evidence]:
    for place, rule in enumerate(matching(failure.message)):
        # The strongest counts; the others often say the same once more.
        effect = f"odds of infrastructure × {rule.odds:g}" if place == 0 else "beside a stronger one"
        yield _Evidence(
            f"The message speaks of {rule.says} (rule {rule.id}, {effect}).",
            infrastructure_factor=rule.odds if place == 0 else 1.0,
        )
    took, usual = failure.seconds, past.usual_seconds
    if took is not None and took >= LONG_FACTOR * usual and took - usual >= LONG_SECONDS:
        yield _Evidence(
            f"It took {took:.0f} s, and takes {usual:.2g} s as a rule (rule took-long, odds of infrastructure"
            f" × {LONG_ODDS:g}).",
            infrastructure_factor=LONG_ODDS,
        )
