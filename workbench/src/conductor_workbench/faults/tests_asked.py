"""Questions about tests, and answers whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from conductor_client import PredictionMethod
from conductor_client.testing.failures import FailureExplanation
from conductor_client.testing.labels import Basis, Provenance
from conductor_client.testing.selections import Selection
from conductor_workbench.faults import tests_model as planted
from conductor_workbench.faults.oracle import tenant_id
from conductor_workbench.faults.tests_model import Tests

TIME_SHARE, MISS_RATE = 0.25, 0.1
"""Goals of selections."""


class Method(Enum):
    """What is asked."""

    PREDICT = "predict"
    SELECT = "select"
    PRIORITIZE = "prioritize"


@dataclass(frozen=True)
class TestsAsked:
    """A question about tests of one tenant."""

    __test__ = False

    tenant: int
    method: Method
    numbers: tuple[int, ...]
    """The tests, in the order asked for; none for all that are known."""
    paths: int
    """So many files are changed."""
    path: int
    """The first of them, which had changed before."""
    changes_test: bool = False
    """The first test is changed itself, so that no model answers."""
    promised: bool = False
    """A selection's goal is a miss rate, not a share of the time."""

    @property
    def tests(self) -> Tests:
        """The tests that an answer is of."""
        return Tests(self.tenant, np.array(self.numbers or range(planted.TESTS), np.intp))

    @property
    def changed_files(self) -> list[str]:
        """The change."""
        others = (planted.path_name(planted.PATHS + number) for number in range(self.paths - 1))
        own = planted.test_ids(self.numbers[:1]) if self.changes_test else []
        return [planted.path_name(self.path), *others, *own]

    def __str__(self) -> str:
        return f"{self.method.value} {len(self.tests.numbers)} tests of {tenant_id(self.tenant)}"


@dataclass(frozen=True)
class TestsTold:
    """An answer, whatever the method."""

    __test__ = False

    test_ids: Sequence[str]
    probabilities: Sequence[float]
    basis: Basis
    provenance: Provenance
    reasons: Sequence[int] = ()
    """Of predictions :class:`FailureReason`."""
    explanations: Sequence[FailureExplanation] = ()
    seconds: Sequence[float] = ()
    """Of an order."""
    total_count: int = 0
    """As an order's head tells."""
    selection: Selection | None = None

    @property
    def method(self) -> PredictionMethod:
        """How it was found."""
        return self.provenance.method
