"""What is asked about tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from conductor_features.changes.changed_file import ChangedFile

TEST_FAILURE = "test-failure"
TEST_FLAKINESS = "test-flakiness"
"""Predictors: which tests fail, and which do so on equal code."""


class ChangeTold(Enum):
    """What is known of a change."""

    NOTHING = "nothing"
    FILES = "files"
    DIFF = "diff"


@dataclass(frozen=True)
class TestRun:
    """A run of tests to come."""

    __test__ = False

    tenant_id: str
    repository: str
    moment_us: int
    """When it begins, in microseconds since the epoch."""
    past_only: bool
    """The caller named that time: rows as of that time or later are not used."""
    test_ids: Sequence[str] = ()
    """Each once; empty for all known ones."""
    told: ChangeTold = ChangeTold.NOTHING
    files: Sequence[ChangedFile] = ()
    """The change; with lines where it was told as a diff."""
    commit_sha: str = ""


@dataclass(frozen=True)
class TimeShare:
    """A goal: at most this share of the candidates' expected time."""

    share: float


@dataclass(frozen=True)
class MissRate:
    """A goal: at most this share of a run's failures is missed, in expectation."""

    alpha: float


@dataclass(frozen=True)
class SelectionRules:
    """What holds beside the goal."""

    must_run: Sequence[str] = ()
    """Ids, and patterns in which ``*`` stands for any characters."""
    must_run_distance: int = 0
    """Tests that the change reaches by so many files or fewer are run; 0 is what is changed itself."""
    audit_share: float = 0.02
    """Of the tests left out, the share that is drawn to be run all the same."""


@dataclass(frozen=True)
class Failure:
    """A failure that is to be judged."""

    run: TestRun
    """With the one test."""
    message: str
    attempt_count: int | None
    passed_attempt_count: int | None
    failed_test_count: int | None
    executed_test_count: int | None
    seconds: float | None
    """How long it took."""
