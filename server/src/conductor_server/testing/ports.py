"""What the servicer asks and of whom; what answering needs of the feature store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conductor_features.keyed import Keyed
from conductor_features.views import View
from conductor_rpc.call import Deadline
from conductor_server.testing.answers import Classified, FlakyPage, FlakyStatus, Ordered, Predicted, Selected
from conductor_server.testing.questions import Failure, MissRate, SelectionRules, TestRun, TimeShare
from conductor_server.testing.rows import Rows


class Intelligence(Protocol):
    """Answers about the tests of a run to come. Raises NoPrediction where nothing can be said, and DeadlineTooShort."""

    async def predict(self, run: TestRun, explanation_count: int, until: Deadline) -> Predicted:
        """How likely each test is to fail; the likeliest ``explanation_count`` are explained."""
        ...

    async def order(self, run: TestRun, until: Deadline) -> Ordered:
        """In which order to run them."""
        ...

    async def select(
        self, run: TestRun, goal: TimeShare | MissRate, rules: SelectionRules, until: Deadline
    ) -> Selected:
        """Which of them to run."""
        ...


class Flakiness(Protocol):
    """Answers about flaky tests. Raises as above."""

    async def list(
        self, tenant_id: str, repository: str, states: Collection[FlakyStatus], count: int, after: str, until: Deadline
    ) -> FlakyPage:
        """A page of a repository's flaky tests; ``after`` is the last page's ``next_after``."""
        ...

    async def classify(self, failure: Failure, until: Deadline) -> Classified:
        """What one failure was."""
        ...


@dataclass(frozen=True)
class ChangeColumns:
    """The request columns of a run's tests."""

    values: NDArray[np.float64]
    """``[n, columns]``, in the order of ``REQUEST_COLUMN_NAMES``."""
    unreadable: tuple[str, ...] = ()
    """``view.field`` of what they are made of and could not be read, or not of all."""


class Features(Protocol):
    """Reads what is known of tests. Never raises for an outage: what can't be read is unreadable."""

    async def candidates(self, run: TestRun, until: Deadline) -> Keyed:
        """The tests that a run is about, in the order of its ids, or all known ones in that of theirs.

        Raises NoPrediction where it names none and none is known.
        """
        ...

    async def rows(self, view: View, run: TestRun, tests: Keyed, until: Deadline) -> Rows:
        """Rows of a view of tests, one for each."""
        ...

    async def change_columns(self, run: TestRun, tests: Keyed, until: Deadline) -> ChangeColumns:
        """The request columns of each test."""
        ...


class FlakyTests(Protocol):
    """Knows which tests there is something to tell of."""

    async def listed(self, tenant_id: str, repository: str, until: Deadline) -> Keyed:
        """A repository's tests that have failed or were quarantined, by id, with the keys of ``test_history``.

        Raises NoPrediction where that can't be read.
        """
        ...
