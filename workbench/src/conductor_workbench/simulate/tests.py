"""Test runs with known truth.

A repository has source files, each with a test file, and tests that depend on their own source file and on a few
others. Each run is of a change of some files:

- a change may break one of its files: tests that depend on it fail from then on, until a later change mends the file.
  Some tests notice nearly everything, most hardly anything; some files are changed all the time, most seldom;
- flaky tests fail now and then whatever was changed, and are tried again twice;
- once in a while the infrastructure gives way, and a good part of the run's tests ends in an error.

Some tests take a hundred times as long as others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome
from conductor_workbench.events_file import Event

BREAKS = 0.15
"""Share of the changes that break something."""
MENDED_AFTER = 4.0
"""Runs, in the mean, until a broken file is mended."""
INFRASTRUCTURE_FAILS = 0.01
"""Share of the runs."""
MOST_ATTEMPTS = 3
_FAILED, _PASSED, _ERROR = (
    TestOutcome.TEST_OUTCOME_FAILED,
    TestOutcome.TEST_OUTCOME_PASSED,
    TestOutcome.TEST_OUTCOME_ERROR,
)


@dataclass(frozen=True)
class TestSimulation:
    """What to simulate. The same settings give the same events, byte for byte."""

    __test__ = False

    tenant_id: str = "octocat"
    repository: str = "octocat/shop"
    files: int = 60
    tests_in_file: int = 6
    runs: int = 360
    days: int = 45
    flaky_share: float = 0.02
    seed: int = 11
    end: datetime = datetime(2025, 3, 7, tzinfo=UTC)
    """When the history ends."""


@dataclass(frozen=True)
class RunTruth:
    """What is true of one run."""

    run_id: str
    broken_files: tuple[str, ...]
    """At the time of the run."""
    flaky_failures: tuple[str, ...]
    """Tests that failed though nothing that they depend on was broken."""
    infrastructure: bool


@dataclass(frozen=True)
class _Repository:
    sources: list[str]
    tests: list[str]
    depends: NDArray[np.bool_]
    """Whether a test depends on a source file. Shape [tests, files]."""
    sensitivity: NDArray[np.float64]
    """How likely a test is to notice that one of them is broken. Shape [tests]."""
    flaky: NDArray[np.float64]
    """How likely a test is to fail for nothing. Shape [tests]."""
    seconds: NDArray[np.float64]
    """Median duration. Shape [tests]."""
    popularity: NDArray[np.float64]
    """How often files are changed, adding up to 1. Shape [files]."""


def simulate_tests(settings: TestSimulation) -> Iterator[tuple[Event, RunTruth]]:
    """``test.completed`` of each run with its truth, in the order of time."""
    chance = np.random.default_rng(settings.seed)
    repository = _repository(settings, chance)
    start = settings.end - timedelta(days=settings.days)
    moments = np.sort(chance.uniform(0, settings.days * 86_400, settings.runs)) // 1
    broken: dict[int, NDArray[np.bool_]] = {}
    """By file, which tests notice."""
    free = start
    for number, moment in enumerate(moments):
        touched = chance.choice(
            settings.files, size=1 + chance.poisson(1.2), replace=False, p=repository.popularity
        ).tolist()
        for file in [file for file in broken if chance.random() < 1 / MENDED_AFTER]:
            del broken[file]
            touched.append(file)  # what mends it changes it
        if chance.random() < BREAKS:
            notices = repository.depends[:, touched[0]] & (
                chance.random(len(repository.tests)) < repository.sensitivity
            )
            if notices.any():
                broken[touched[0]] = notices
        started = max(start + timedelta(seconds=float(moment)), free)
        event, truth = _run(settings, repository, number, started, sorted(set(touched)), broken, chance)
        free = event.time + timedelta(seconds=1)
        yield event, truth


def _repository(settings: TestSimulation, chance: np.random.Generator) -> _Repository:
    files, count = settings.files, settings.files * settings.tests_in_file
    depends = np.repeat(np.eye(files, dtype=bool), settings.tests_in_file, axis=0)
    depends |= chance.random((count, files)) < 1.0 / files
    popularity = np.arange(1, files + 1) ** -1.3
    return _Repository(
        sources=[f"src/shop/part_{file:02d}.py" for file in range(files)],
        tests=[
            f"tests/test_part_{file:02d}.py::test_case_{case}"
            for file in range(files)
            for case in range(settings.tests_in_file)
        ],
        depends=depends,
        sensitivity=np.where(chance.random(count) < 0.3, 0.9, 0.01),
        flaky=np.where(chance.random(count) < settings.flaky_share, chance.uniform(0.01, 0.1, count), 0.0),
        seconds=np.exp(chance.normal(0.0, 1.4, count)),
        popularity=chance.permutation(popularity / popularity.sum()),
    )


def _run(
    settings: TestSimulation,
    repository: _Repository,
    number: int,
    started: datetime,
    touched: list[int],
    broken: dict[int, NDArray[np.bool_]],
    chance: np.random.Generator,
) -> tuple[Event, RunTruth]:
    run_id = f"run-{number:05d}"
    data = TestCompleted(
        run_id=run_id,
        repository=settings.repository,
        pipeline="tests",
        branch="main",
        commit_sha=f"{number:040x}",
        changed_paths=[repository.sources[file] for file in touched],
    )
    failing = np.zeros(len(repository.tests), bool)
    for notices in broken.values():
        failing |= notices
    infrastructure = bool(chance.random() < INFRASTRUCTURE_FAILS)
    unreachable = (chance.random(len(failing)) < 0.4) & infrastructure
    flaky_failures = []
    elapsed = 0.0
    for at, test in enumerate(repository.tests):
        for attempt in range(MOST_ATTEMPTS):
            flakes = bool(chance.random() < repository.flaky[at])
            seconds = max(0.001, round(float(repository.seconds[at] * np.exp(chance.normal(0.0, 0.15))), 3))
            elapsed += seconds
            result = data.results.add(test_id=test, outcome=_PASSED)
            result.duration.FromTimedelta(timedelta(seconds=seconds))
            if unreachable[at]:
                result.outcome = _ERROR
                result.failure_message = "ConnectionRefusedError: [Errno 111] Connection refused: db:5432"
                break
            if not failing[at] and not flakes:
                break
            result.outcome = _FAILED
            result.failure_message = "AssertionError: expected 3 items, found 2"
            if not failing[at] and attempt == 0:
                flaky_failures.append(test)
            if repository.flaky[at] == 0:
                break
    ended = started + timedelta(seconds=round(elapsed, 3))
    data.started_time.FromDatetime(started)
    data.completed_time.FromDatetime(ended)
    event = Event(ended, "test.completed", f"{run_id}/completed", "/simulation", settings.tenant_id, run_id, data)
    truth = RunTruth(run_id, tuple(repository.sources[file] for file in broken), tuple(flaky_failures), infrastructure)
    return event, truth
