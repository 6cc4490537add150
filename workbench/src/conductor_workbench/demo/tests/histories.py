"""Histories of test runs for the demo: real ones where there are any, else a simulated one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome
from conductor_workbench.datasets import tcp
from conductor_workbench.datasets.catalogue import DATASETS, local_files
from conductor_workbench.events_file import Event
from conductor_workbench.simulate.tests import TestSimulation, simulate_tests

Array = NDArray[np.float64]
_NOT_RUN = TestOutcome.TEST_OUTCOME_SKIPPED
_PASSED = TestOutcome.TEST_OUTCOME_PASSED


@dataclass(frozen=True)
class Run:
    """A run of tests as it was."""

    event: Event

    @property
    def data(self) -> TestCompleted:
        """What the event tells."""
        assert isinstance(self.event.data, TestCompleted)  # noqa: S101 - histories hold no others
        return self.event.data

    @property
    def started(self) -> datetime:
        """When its first test began."""
        return self.data.started_time.ToDatetime(self.event.time.tzinfo)

    @cached_property
    def tests(self) -> Sequence[str]:
        """Tests that were executed, each once, in the order in which they ran."""
        return list(dict.fromkeys(result.test_id for result in self.data.results if result.outcome != _NOT_RUN))

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each failed at least once. Shape [tests]."""
        failed = {result.test_id for result in self.data.results if result.outcome not in (_NOT_RUN, _PASSED)}
        return np.array([test in failed for test in self.tests], bool)

    @cached_property
    def seconds(self) -> Array:
        """What each took in all; the mean of the others where nobody knows, 1 where none is known. Shape [tests]."""
        took: dict[str, float] = {}
        for result in self.data.results:
            if result.HasField("duration"):
                seconds = result.duration.seconds + result.duration.nanos / 1e9
                took[result.test_id] = took.get(result.test_id, 0.0) + seconds
        mean = float(np.mean(list(took.values()))) if took else 1.0
        return np.array([took.get(test, mean) for test in self.tests])


def find_histories() -> tuple[str, Mapping[str, Sequence[Run]]]:
    """What they are, and the runs of each tenant in the order of time.

    The files of a study of test prioritisation under CONDUCTOR_DATA_HOME, else simulated ones.
    """
    files = _one_for_each_project(local_files(DATASETS[tcp.NAME]))
    if files:
        events = list(tcp.convert(files, tcp.Report()))
        source = f"real: {tcp.NAME}, {len(events):,} runs in {len(files)} files"
    else:
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)  # which tests are flaky is told of today
        events = [event for event, _ in simulate_tests(TestSimulation(end=now))]
        source = "simulated (CONDUCTOR_DATA_HOME holds no real test runs)"
    histories: dict[str, list[Run]] = {}
    for event in sorted(events, key=lambda event: event.time):
        histories.setdefault(event.tenant_id, []).append(Run(event))
    return source, histories


def _one_for_each_project(files: Sequence[Path]) -> list[Path]:
    """Of several files of a project the first by name: they tell the same runs."""
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(tcp.project_of(path), path)
    return list(found.values())
