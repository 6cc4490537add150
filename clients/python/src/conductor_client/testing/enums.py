"""What answers about tests say in one word. Each is the contract's enum without its prefix; a value that a later server
has added is UNSPECIFIED."""

from enum import IntEnum
from typing import Self


class _Told(IntEnum):
    @classmethod
    def _missing_(cls, value: object) -> Self:
        return cls(0)


class FailureReason(_Told):
    """What speaks loudest for a test's failure."""

    UNSPECIFIED = 0
    """Nothing in particular: tests like it seldom fail."""
    FAILED_LAST = 1
    FAILED_RECENTLY = 2
    FAILS_OFTEN = 3
    FLAKY = 4
    TEST_CHANGED = 5
    FAILED_WITH_FILES = 6
    REACHED = 7
    NEVER_RAN = 8
    HISTORY_UNREADABLE = 9


class SelectionReason(_Told):
    """Why a test is to be run or left out."""

    UNSPECIFIED = 0
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


class PromiseBasis(_Told):
    """What a promise rests on, or why everything is run."""

    UNSPECIFIED = 0
    CALIBRATED = 1
    TOO_FEW_RUNS = 2
    BROKEN_LATELY = 3
    TOO_OLD = 4
    NO_CALIBRATION = 5


class ChangeBasis(_Told):
    """What was known of the change."""

    UNSPECIFIED = 0
    """Nothing."""
    FILES = 1
    DIFF = 2


class ImpactBasis(_Told):
    """What was known of the code that tests reach."""

    UNSPECIFIED = 0
    """Nothing was asked: no change was told."""
    NO_GRAPH = 1
    LOADING = 2
    UNAVAILABLE = 3
    GRAPH = 4


class FlakyState(_Told):
    """What a test is."""

    UNSPECIFIED = 0
    """Not flaky, as far as is known."""
    ACTIVE = 1
    QUARANTINED = 2
    FIXED = 3


class FailureVerdict(_Told):
    """What a failure was."""

    UNSPECIFIED = 0
    """It can't be told."""
    REAL = 1
    FLAKY = 2
    INFRASTRUCTURE = 3


class NextStep(_Told):
    """What to do about a failure."""

    UNSPECIFIED = 0
    """Nothing in particular."""
    RERUN_TEST = 1
    RERUN_JOB = 2
    INSPECT_CHANGE = 3
    QUARANTINE = 4
    BISECT = 5
