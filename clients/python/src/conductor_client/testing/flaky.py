"""Flaky tests and failures, in Python's own terms."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from conductor.testing.v1 import flaky_test_pb2
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureResponse
from conductor_client.testing.enums import FailureVerdict, FlakyState, NextStep
from conductor_client.testing.labels import Basis, Provenance, basis, provenance


@dataclass(frozen=True)
class FlakyEvidence:
    """What speaks for or against a test's flakiness."""

    run_count: int
    failure_count: int
    flip_count: int
    """How often a result was another than the one before."""
    rerun_flip_count: int
    """Those of them within one run: on equal code."""
    flip_rate: float
    outcome_entropy: float
    """In bits: 0 for always the same."""
    last_flip: datetime | None
    runs_since_flip: int


class FlakyTransition(NamedTuple):
    """When a test came into a state."""

    state: FlakyState
    time: datetime


@dataclass(frozen=True)
class FlakyTest:
    """A test that is flaky, or was."""

    test_id: str
    state: FlakyState
    probability: float
    """That its next failure is flaky: that it would pass if it was tried again."""
    evidence: FlakyEvidence
    history: tuple[FlakyTransition, ...]
    """What became of it, oldest first."""
    provenance: Provenance
    """Of its page."""


@dataclass(frozen=True)
class FailureClassification:
    """What one failure was."""

    verdict: FailureVerdict
    real: float
    """Probability that the code under test, or the test, is wrong."""
    flaky: float
    """Probability that it would pass if it was tried again."""
    infrastructure: float
    """Probability that something around the test gave way."""
    evidence: tuple[str, ...]
    """What speaks for it, most telling first."""
    history: FlakyEvidence | None
    """The test's own."""
    next_step: NextStep
    basis: Basis
    provenance: Provenance


def flaky_tests(response: flaky_test_pb2.ListFlakyTestsResponse) -> Iterator[FlakyTest]:
    """The tests of a page."""
    origin = provenance(response.provenance)
    for told in response.tests:
        yield FlakyTest(
            test_id=told.test_id,
            state=FlakyState(told.state),
            probability=told.flaky_probability,
            evidence=_evidence(told.evidence),
            history=tuple(
                FlakyTransition(FlakyState(one.state), one.time.ToDatetime(tzinfo=UTC)) for one in told.history
            ),
            provenance=origin,
        )


def failure_classification(response: ClassifyFailureResponse) -> FailureClassification:
    """Read an answer."""
    return FailureClassification(
        verdict=FailureVerdict(response.verdict),
        real=response.probabilities.real,
        flaky=response.probabilities.flaky,
        infrastructure=response.probabilities.infrastructure,
        evidence=tuple(response.evidence),
        history=_evidence(response.history) if response.HasField("history") else None,
        next_step=NextStep(response.next_step),
        basis=basis(response.basis),
        provenance=provenance(response.provenance),
    )


def _evidence(told: flaky_test_pb2.FlakyEvidence) -> FlakyEvidence:
    flipped = told.HasField("last_flip_time")
    return FlakyEvidence(
        run_count=told.run_count,
        failure_count=told.failure_count,
        flip_count=told.flip_count,
        rerun_flip_count=told.rerun_flip_count,
        flip_rate=told.flip_rate,
        outcome_entropy=told.outcome_entropy,
        last_flip=told.last_flip_time.ToDatetime(tzinfo=UTC) if flipped else None,
        runs_since_flip=told.runs_since_flip,
    )
