"""Which tests to run, in Python's own terms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from conductor.testing.v1 import test_selection_pb2
from conductor_client.testing.enums import PromiseBasis, SelectionReason
from conductor_client.testing.labels import Basis, Provenance, basis, provenance


class SelectionChoice(NamedTuple):
    """One test of a selection."""

    test_id: str
    probability: float
    """That it fails, calibrated."""
    reason: SelectionReason
    """Why it is in or out."""


@dataclass(frozen=True)
class RealisedMissRate:
    """What a promise came to on past runs with a failure, each by what was known before it."""

    miss_rate: float
    run_count: int
    start: datetime
    end: datetime


@dataclass(frozen=True)
class SelectionPromise:
    """What a selection promises."""

    miss_rate: float
    """Of the failures of a run that has any, at most this share is missed in expectation."""
    level: float
    """What it was calibrated for: less than ``miss_rate`` where more was missed lately."""
    basis: PromiseBasis
    threshold: float | None
    """Tests of this probability or a greater one are run; None where everything is."""
    calibration_run_count: int
    calibration_end: datetime | None
    realised: RealisedMissRate | None


@dataclass(frozen=True)
class Selection:
    """Which tests to run. Iterating gives all candidates with their reasons, made when they are read."""

    test_ids: Sequence[str]
    """All candidates."""
    probabilities: Sequence[float]
    reason_numbers: Sequence[int]
    """Of :class:`SelectionReason`."""
    selected: Sequence[int]
    """The tests to run, by where they stand in ``test_ids``, in the order in which to run them."""
    selected_duration: timedelta
    """Expected time of the tests to run, one after the other."""
    total_duration: timedelta
    unknown_duration_count: int
    promise: SelectionPromise | None
    """Where the goal was a miss rate."""
    audit_share: float
    expected_missed_failures: float
    basis: Basis
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.test_ids)

    def __iter__(self) -> Iterator[SelectionChoice]:
        return map(self._choice, range(len(self)))

    @cached_property
    def selected_ids(self) -> list[str]:
        """The tests to run, in the order in which to run them."""
        return [self.test_ids[at] for at in self.selected]

    @property
    def chosen(self) -> Iterator[SelectionChoice]:
        """The tests to run with their reasons, in the order in which to run them."""
        return map(self._choice, self.selected)

    @property
    def left_out(self) -> Iterator[SelectionChoice]:
        """The tests not to run, in the order of the candidates."""
        chosen = set(self.selected)
        return (self._choice(at) for at in range(len(self)) if at not in chosen)

    def _choice(self, at: int) -> SelectionChoice:
        return SelectionChoice(self.test_ids[at], self.probabilities[at], SelectionReason(self.reason_numbers[at]))


def selection(response: test_selection_pb2.SelectTestsResponse) -> Selection:
    """Read an answer."""
    return Selection(
        test_ids=tuple(response.test_ids),
        probabilities=tuple(response.failure_probabilities),
        reason_numbers=tuple(response.reasons),
        selected=tuple(response.selected),
        selected_duration=response.time.selected_duration.ToTimedelta(),
        total_duration=response.time.total_duration.ToTimedelta(),
        unknown_duration_count=response.time.unknown_count,
        promise=_promise(response.promise) if response.HasField("promise") else None,
        audit_share=response.audit_share,
        expected_missed_failures=response.expected_missed_failures,
        basis=basis(response.basis),
        provenance=provenance(response.provenance),
    )


def _promise(told: test_selection_pb2.SelectionPromise) -> SelectionPromise:
    ended = told.HasField("calibration_end_time")
    return SelectionPromise(
        miss_rate=told.miss_rate,
        level=told.level,
        basis=PromiseBasis(told.basis),
        threshold=told.threshold if told.HasField("threshold") else None,
        calibration_run_count=told.calibration_run_count,
        calibration_end=told.calibration_end_time.ToDatetime(tzinfo=UTC) if ended else None,
        realised=_realised(told.realised) if told.HasField("realised") else None,
    )


def _realised(told: test_selection_pb2.RealisedMissRate) -> RealisedMissRate:
    return RealisedMissRate(
        miss_rate=told.miss_rate,
        run_count=told.run_count,
        start=told.start_time.ToDatetime(tzinfo=UTC),
        end=told.end_time.ToDatetime(tzinfo=UTC),
    )
