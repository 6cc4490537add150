"""Frames of test runs: what was known of each test of a run at the moment before the run began.

Features are the rows of the feature store's views, by the warehouse's own definitions; they are computed from runs in
memory, which gives the rows of the feature log (``tests/warehouse/test_frame_parity.py`` compares). A run is asked for
at its start (its end, where the start is unknown), and knows the runs that ended before that.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome, TestResult
from conductor_features.request_columns import tests as request_columns
from conductor_features.request_columns.tests import PathFailures, request_values
from conductor_features.views import PATH_CHANGES, TEST_HISTORY
from conductor_training.test_failure.columns import COLUMNS, INDEX, REQUEST_COLUMN_NAMES
from conductor_training.test_failure.histories import Histories
from conductor_warehouse.features.tests import COUNTS, after_change, after_result

Array = NDArray[np.float64]
_TOLD = [request_columns.REQUEST_COLUMN_NAMES.index(name) for name in REQUEST_COLUMN_NAMES]
_TOLD_AT = [INDEX[name] for name in REQUEST_COLUMN_NAMES]
_OUTCOME_NUMBERS = {
    TestOutcome.TEST_OUTCOME_PASSED: 0.0,
    TestOutcome.TEST_OUTCOME_FAILED: 1.0,
    TestOutcome.TEST_OUTCOME_ERROR: 1.0,
    TestOutcome.TEST_OUTCOME_SKIPPED: 2.0,
}


@dataclass(frozen=True)
class Run:
    """A run of tests of one tenant, in the order in which its tests ran."""

    tenant_id: str
    run_id: str
    repository: str
    started: float
    """Epoch seconds; the end, where the start is unknown."""
    completed: float
    changed_paths: Sequence[str]
    tests: Sequence[str]
    outcomes: Array
    """0 passed, 1 failed, 2 skipped. Shape [results]."""
    durations: Array
    """Seconds, NaN where unknown. Shape [results]."""

    @classmethod
    def of(cls, tenant_id: str, data: TestCompleted) -> Run:
        """From an event's data."""
        completed = data.completed_time.ToMicroseconds() / 1e6
        return cls(
            tenant_id=tenant_id,
            run_id=data.run_id,
            repository=data.repository,
            started=data.started_time.ToMicroseconds() / 1e6 if data.HasField("started_time") else completed,
            completed=completed,
            changed_paths=list(dict.fromkeys(data.changed_paths)),
            tests=[result.test_id for result in data.results],
            outcomes=np.array([_OUTCOME_NUMBERS[result.outcome] for result in data.results]),
            durations=np.array([_seconds(result) for result in data.results]),
        )


def _seconds(result: TestResult) -> float:
    # As the warehouse does it, to the last bit.
    return result.duration.seconds + result.duration.nanos / 1e9 if result.HasField("duration") else np.nan


@dataclass(frozen=True)
class TestFrame:
    """Tests by run, runs in the order of their start. Every array but ``inputs`` has the shape [rows].

    A row is a test that was executed in a run, however often.
    """

    __test__ = False

    inputs: NDArray[np.float32]
    """Shape [rows, len(COLUMNS)]."""
    run: NDArray[np.int64]
    """Number of the row's run, ascending."""
    started: Array
    completed: Array
    test: NDArray[np.str_]
    result_count: Array
    failed_count: Array
    """Executed results, and those that failed."""
    seconds: Array
    """What its results took together; the run's mean where it is unknown, 1 where nothing is known."""

    @property
    def failed(self) -> Array:
        """1 where a result failed, else 0."""
        return (self.failed_count > 0).astype(np.float64)

    def take(self, which: NDArray[np.bool_]) -> TestFrame:
        """Some of the rows."""
        return TestFrame(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def digest(self) -> str:
        """SHA-256 of the content."""
        digest = hashlib.sha256()
        for name in self.__dataclass_fields__:
            values = getattr(self, name)
            digest.update(name.encode())
            digest.update("\0".join(values).encode() if values.dtype.kind == "U" else values.tobytes())
        return digest.hexdigest()


class _Past:
    """What was known of one repository at a moment."""

    def __init__(self) -> None:
        self.tests = Histories(TEST_HISTORY, COUNTS, after_result)
        self.paths = Histories(PATH_CHANGES, ("change_count", "failed_run_count"), after_change)
        self.failures: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        """By path: the runs of changes of it in which each test failed; view ``test_path_affinity``."""

    def add(self, run: Run) -> None:
        self.tests.add(run.tests, run.completed, {"outcome": run.outcomes, "duration": run.durations})
        failed = {test for test, outcome in zip(run.tests, run.outcomes, strict=True) if outcome == 1}
        paths = list(run.changed_paths)
        if paths:
            self.paths.add(paths, run.completed, {"failed": np.full(len(paths), float(bool(failed)))})
            for path in paths:
                for test in failed:
                    self.failures[path][test] += 1

    def inputs(
        self, tests: Sequence[str], at: float, changed_paths: Sequence[str], repository: str
    ) -> NDArray[np.float32]:
        """The graph's input for tests of a run of the repository that begins at ``at``."""
        history = self.tests.rows(self.tests.find(tests), at)
        inputs = np.full((len(tests), len(COLUMNS)), np.nan)
        for place, column in enumerate(COLUMNS):
            if column.view is not None:
                values = history[:, column.view.field_index[column.field]]
                values = at - values if column.elapsed else values
                inputs[:, place] = (
                    values if column.default is None else np.where(np.isnan(values), column.default, values)
                )
        if changed_paths:
            inputs[:, _TOLD_AT] = self._change(tests, at, changed_paths, repository)[:, _TOLD]
        return inputs.astype(np.float32)

    def _change(self, tests: Sequence[str], at: float, paths: Sequence[str], repository: str) -> Array:
        """The request columns of each test."""
        changes = self.paths.rows(self.paths.find(paths), at)
        index = {test: place for place, test in enumerate(tests)}
        failures = []
        for path in paths:
            counts = {index[test]: count for test, count in self.failures.get(path, {}).items() if test in index}
            failures.append(PathFailures(np.array(list(counts), np.intp), np.array(list(counts.values()), np.float64)))
        return request_values(index, paths, changes, failures, repository)


def frame_of_runs(runs: Iterable[Run]) -> TestFrame:
    """The frame of one tenant's runs; a run without an executed result has no rows."""
    asked = sorted(runs, key=lambda run: (run.started, run.completed, run.run_id))
    ended = iter(sorted(asked, key=lambda run: (run.completed, run.run_id)))
    following = next(ended, None)
    pasts: dict[str, _Past] = defaultdict(_Past)
    parts = []
    for number, run in enumerate(asked):
        while following is not None and following.completed < run.started:
            pasts[following.repository].add(following)
            following = next(ended, None)
        parts.append(_rows(number, run, pasts[run.repository]))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return TestFrame(*columns)


def _rows(number: int, run: Run, past: _Past) -> tuple[NDArray[np.generic], ...]:
    executed = run.outcomes != 2
    names, which = np.unique(np.array(run.tests, dtype=np.str_)[executed], return_inverse=True)
    size = len(names)

    def total(values: Array) -> Array:
        return np.bincount(which, values, size).astype(np.float64)

    durations = run.durations[executed]
    mean = float(np.nanmean(durations)) if not np.isnan(durations).all() else 1.0
    return (
        past.inputs(list(names), run.started, run.changed_paths, run.repository),
        np.full(size, number),
        np.full(size, run.started),
        np.full(size, run.completed),
        names,
        total(np.ones(len(which))),
        total((run.outcomes[executed] == 1).astype(np.float64)),
        total(np.where(np.isnan(durations), mean, durations)),
    )
