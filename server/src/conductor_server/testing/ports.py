"""What the servicer asks, and of whom."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from conductor_rpc.call import Deadline
from conductor_server.testing.answers import Classified, FlakyPage, FlakyStatus, Ordered, Predicted, Selected
from conductor_server.testing.questions import Failure, MissRate, SelectionRules, TestRun, TimeShare


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
