"""Answers about tests, in columns: the n-th of each array is of the n-th test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from conductor_model_store.promise import Threshold
from conductor_server.prediction.answers import Contribution, Origin

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]


class Impact(IntEnum):
    """What was known of the code that tests reach; values as in the contract."""

    NOT_ASKED = 0
    NO_GRAPH = 1
    LOADING = 2
    UNAVAILABLE = 3
    GRAPH = 4


class Reason(IntEnum):
    """What speaks loudest for a failure; values as in the contract's ``FailureReason``."""

    NONE = 0
    FAILED_LAST = 1
    FAILED_RECENTLY = 2
    FAILS_OFTEN = 3
    FLAKY = 4
    TEST_CHANGED = 5
    FAILED_WITH_FILES = 6
    REACHED = 7
    NEVER_RAN = 8
    HISTORY_UNREADABLE = 9


class Choice(IntEnum):
    """Why a test is run or left out; values as in the contract's ``SelectionReason``."""

    MUST_RUN = 1
    REACHED = 2
    NEVER_RAN = 3
    HISTORY_UNREADABLE = 4
    LIKELY_ENOUGH = 5
    WORTH_ITS_TIME = 6
    EVERYTHING = 7
    AUDIT = 8
    UNLIKELY = 100
    OUT_OF_TIME = 101


@dataclass(frozen=True)
class Basis:
    """What an answer rests on, beside the model."""

    impact: Impact = Impact.NOT_ASKED
    graph_commit_sha: str = ""
    never_run_count: int = 0
    unreadable_count: int = 0
    unplaced_paths: Sequence[str] = ()
    known_tests_cut: bool = False
    """All known tests were asked for, and there are more."""
    known_tests_filling: bool = False
    """The same, and there may be more: the list is being filled in."""


@dataclass(frozen=True)
class ImpactWay:
    """How changed code reaches a test."""

    distance: int
    nodes: Sequence[str]


@dataclass(frozen=True)
class Explanation:
    """Why one test is likely to fail."""

    index: int
    contributions: Sequence[Contribution]
    """Effects are of the probability."""
    impact: ImpactWay | None


@dataclass(frozen=True)
class Predicted:
    """How likely each test is to fail."""

    test_ids: Sequence[str]
    probabilities: Array
    reasons: NDArray[np.int64]
    """Of :class:`Reason`."""
    basis: Basis
    origin: Origin
    oldest_age_seconds: float | None
    """Of the oldest feature row that was used; None for none."""
    explanations: Sequence[Explanation] = ()


@dataclass(frozen=True)
class Times:
    """How long tests take, in seconds."""

    expected: Array
    """Of each; where it is unknown the median of the others, 1 where none is known."""
    unknown_count: int


@dataclass(frozen=True)
class Ordered:
    """Tests in the order that finds failures early for the time spent."""

    predicted: Predicted
    times: Times
    order: Numbers
    """Where each stands in ``predicted``, first to run first."""


@dataclass(frozen=True)
class Realised:
    """What a promise came to on past runs with a failure, each by what was known before it."""

    miss_rate: float
    run_count: int
    start_seconds: float
    """Epoch seconds."""
    end_seconds: float


class Ground(IntEnum):
    """What a promise rests on; values as in the contract's ``PromiseBasis``."""

    CALIBRATED = 1
    TOO_FEW_RUNS = 2
    BROKEN_LATELY = 3
    TOO_OLD = 4
    NO_CALIBRATION = 5


@dataclass(frozen=True)
class Promise:
    """What a selection promises."""

    alpha: float
    ground: Ground
    threshold: Threshold | None = None
    """None where there is no calibration."""
    calibrated_until_seconds: float | None = None
    """Epoch seconds: the end of the latest run that it was calibrated on."""
    realised: Realised | None = None


@dataclass(frozen=True)
class Selected:
    """The tests to run."""

    ordered: Ordered
    choices: NDArray[np.int64]
    """Of :class:`Choice`."""
    chosen: Numbers
    """The tests to run, in the order in which to run them."""
    audit_share: float
    expected_missed_failures: float
    promise: Promise | None = None
    """Of a goal of a miss rate."""


class FlakyStatus(IntEnum):
    """What a test is; values as in the contract's ``FlakyState``."""

    NOT_FLAKY = 0
    ACTIVE = 1
    QUARANTINED = 2
    FIXED = 3


@dataclass(frozen=True)
class FlakyFacts:
    """What speaks for or against a test's flakiness."""

    run_count: int
    failure_count: int
    flip_count: int
    rerun_flip_count: int
    flip_rate: float
    outcome_entropy: float
    """Bits."""
    last_flip_seconds: float | None
    """Epoch seconds."""
    runs_since_flip: int


@dataclass(frozen=True)
class FlakyOne:
    """A test that is flaky, or was."""

    test_id: str
    status: FlakyStatus
    probability: float
    facts: FlakyFacts
    history: Sequence[tuple[FlakyStatus, float]]
    """States and when they came about, in epoch seconds, oldest first."""


@dataclass(frozen=True)
class FlakyPage:
    """Some of a repository's flaky tests."""

    tests: Sequence[FlakyOne]
    total_count: int
    next_after: str
    """What the next page begins after; empty for none."""
    origin: Origin
    oldest_age_seconds: float | None = None


class Verdict(IntEnum):
    """What a failure was; values as in the contract's ``FailureVerdict``."""

    UNKNOWN = 0
    REAL = 1
    FLAKY = 2
    INFRASTRUCTURE = 3


class NextStep(IntEnum):
    """What to do about it; values as in the contract's ``NextStep``."""

    NONE = 0
    RERUN_TEST = 1
    RERUN_JOB = 2
    INSPECT_CHANGE = 3
    QUARANTINE = 4
    BISECT = 5


@dataclass(frozen=True)
class Classified:
    """What one failure was."""

    verdict: Verdict
    real: float
    flaky: float
    infrastructure: float
    evidence: Sequence[str]
    facts: FlakyFacts | None
    next_step: NextStep
    basis: Basis
    origin: Origin
    oldest_age_seconds: float | None = None
    missing: Sequence[str] = field(default=())
