"""How likely tests are to fail, and in which order to run them, in Python's own terms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, overload

from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresResponse, TestExplanation
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsResponse
from conductor_client.testing.enums import FailureReason
from conductor_client.testing.labels import Basis, Provenance, basis, provenance


class FailureChance(NamedTuple):
    """One test of a prediction."""

    test_id: str
    probability: float
    """That it fails, calibrated."""
    reason: FailureReason
    """What speaks loudest for its failure."""


class ProbabilityContribution(NamedTuple):
    """How much one feature moved a probability, against its typical value."""

    feature: str
    value: float | None
    """The feature's value; None if it was missing."""
    effect: float


class ImpactWay(NamedTuple):
    """How changed code reaches a test."""

    distance: int
    """Files that the way crosses."""
    nodes: tuple[str, ...]
    """From the change to the test."""


class FailureExplanation(NamedTuple):
    """Why one test is likely to fail."""

    test_id: str
    contributions: tuple[ProbabilityContribution, ...]
    """Largest effect first."""
    impact: ImpactWay | None
    """None where it is not known."""


@dataclass(frozen=True)
class FailurePredictions(Sequence[FailureChance]):
    """How likely each test is to fail, in the order asked for: a sequence, whose items are made when they are read."""

    test_ids: Sequence[str]
    probabilities: Sequence[float]
    reason_numbers: Sequence[int]
    """Of :class:`FailureReason`."""
    explanations: tuple[FailureExplanation, ...]
    """Of the likeliest, likeliest first."""
    basis: Basis
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.test_ids)

    @overload
    def __getitem__(self, index: int) -> FailureChance: ...

    @overload
    def __getitem__(self, index: slice) -> list[FailureChance]: ...

    def __getitem__(self, index: int | slice) -> FailureChance | list[FailureChance]:
        """One test, or a list of some."""
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        return FailureChance(self.test_ids[index], self.probabilities[index], FailureReason(self.reason_numbers[index]))

    def likeliest(self, count: int) -> list[FailureChance]:
        """The tests that are likeliest to fail, likeliest first."""
        order = sorted(range(len(self)), key=self.probabilities.__getitem__, reverse=True)
        return [self[at] for at in order[:count]]


class OrderedTest(NamedTuple):
    """The next test to run."""

    test_id: str
    probability: float
    """That it fails, calibrated."""
    expected_duration: timedelta


@dataclass(frozen=True)
class OrderHead:
    """What the first message of an order tells of all of it."""

    total_count: int
    basis: Basis
    provenance: Provenance


def failure_predictions(response: PredictTestFailuresResponse) -> FailurePredictions:
    """Read an answer."""
    test_ids = tuple(response.test_ids)
    return FailurePredictions(
        test_ids=test_ids,
        probabilities=tuple(response.failure_probabilities),
        reason_numbers=tuple(response.reasons),
        explanations=tuple(_explanation(test_ids[one.index], one) for one in response.explanations),
        basis=basis(response.basis),
        provenance=provenance(response.provenance),
    )


def _explanation(test_id: str, told: TestExplanation) -> FailureExplanation:
    contributions = (
        ProbabilityContribution(one.feature, one.value if one.HasField("value") else None, one.effect)
        for one in told.contributions
    )
    impact = ImpactWay(told.impact.distance, tuple(told.impact.nodes)) if told.HasField("impact") else None
    return FailureExplanation(test_id, tuple(contributions), impact)


def order_head(response: PrioritizeTestsResponse) -> OrderHead:
    """Read the first message of an order."""
    return OrderHead(response.total_count, basis(response.basis), provenance(response.provenance))


def ordered_tests(response: PrioritizeTestsResponse) -> Iterator[OrderedTest]:
    """The tests of one message of an order."""
    columns = zip(response.test_ids, response.failure_probabilities, response.expected_seconds, strict=True)
    for test_id, probability, seconds in columns:
        yield OrderedTest(test_id, probability, timedelta(seconds=seconds))
