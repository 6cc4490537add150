"""Builds with known truth.

A build that passes takes ``median × exp(noise)`` seconds, where the median is the product of the tenant's level and of

- seasonality: slower in working hours and on weekdays, by up to the tenant's amplitude;
- drift: a slow trend over the history and one step at a random moment (a new runner, a new test suite);
- branch: each branch has a factor of its own; the main branch has none;
- size: builds of large changes take longer;
- a flaky slowdown: with a small probability the build takes 1.5 to 2.5 times as long; nothing tells beforehand.

Failed builds stop after a random share of that time. The last tenant is a cold start: it has only a few builds, late.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from conductor.build.v1.build_context_pb2 import BuildContext, BuildTrigger, ChangeSet, RepositoryState
from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor_workbench.events_file import Event

NOISE_SIGMA = 0.06
"""Standard deviation of the noise on the log scale: no model can do better than a MAPE of about 5 %."""
COLD_START_BUILDS = 8


@dataclass(frozen=True)
class Simulation:
    """What to simulate. The same settings give the same events, byte for byte."""

    tenants: int = 4
    builds: int = 600
    """Builds of each tenant but the cold-start one."""
    days: int = 60
    seed: int = 7
    end: datetime = datetime(2025, 3, 7, tzinfo=UTC)
    """When the history ends."""

    def __post_init__(self) -> None:
        if self.tenants < 1 or self.builds < 1 or self.days < 1:
            raise ValueError("tenants, builds and days must be at least 1")

    @property
    def start(self) -> datetime:
        """When the history begins."""
        return self.end - timedelta(days=self.days)


@dataclass(frozen=True)
class Truth:
    """What is true of one build."""

    tenant_id: str
    build_id: str
    median_seconds: float
    """Median of the duration if it passes without a slowdown, given all that was known when it was queued."""
    duration_seconds: float
    passed: bool
    slowed: bool


@dataclass(frozen=True)
class _Tenant:
    name: str
    level_seconds: float
    season: float
    trend: float
    step: float
    step_at: float
    failure_rate: float
    branch_factors: np.ndarray
    builds: int
    first_day: float


def simulate(settings: Simulation) -> Iterator[tuple[Event, Event, Truth]]:
    """For each build its ``build.queued``, its ``build.completed`` and the truth, tenant by tenant in queued order."""
    for number in range(settings.tenants):
        generator = np.random.default_rng([settings.seed, number])
        cold = settings.tenants > 1 and number == settings.tenants - 1
        yield from _builds(_tenant(number, cold, settings, generator), settings, generator)


def _tenant(number: int, cold: bool, settings: Simulation, generator: np.random.Generator) -> _Tenant:
    return _Tenant(
        name=f"tenant-{number:03d}" + ("-cold" if cold else ""),
        level_seconds=float(np.exp(generator.uniform(np.log(60), np.log(1800)))),
        season=float(generator.uniform(0.05, 0.25)),
        trend=float(generator.uniform(-0.15, 0.3)),
        step=float(generator.uniform(0.75, 1.35)),
        step_at=float(generator.uniform(0.3, 0.7)),
        failure_rate=float(generator.uniform(0.05, 0.3)),
        branch_factors=np.concatenate([[1.0], np.exp(generator.normal(0.0, 0.15, size=11))]),
        builds=min(COLD_START_BUILDS, settings.builds) if cold else settings.builds,
        first_day=settings.days * 0.9 if cold else 0.0,
    )


def _builds(
    tenant: _Tenant, settings: Simulation, generator: np.random.Generator
) -> Iterator[tuple[Event, Event, Truth]]:
    # Whole seconds, as CI systems report them.
    moments = np.sort(generator.uniform(tenant.first_day, settings.days, size=tenant.builds)) * 86_400 // 1
    for index, moment in enumerate(moments):
        queued = settings.start + timedelta(seconds=float(moment))
        branch = 0 if generator.random() < 0.4 else int(generator.integers(1, len(tenant.branch_factors)))
        lines = int(np.exp(generator.normal(3.5, 1.3)))
        elapsed = moment / (settings.days * 86_400)
        working = np.clip(np.cos((queued.hour + queued.minute / 60 - 14) / 24 * 2 * np.pi), 0, None)
        median = (
            tenant.level_seconds
            * (1 + tenant.season * working * (queued.weekday() < 5))
            * (1 + tenant.trend * elapsed)
            * (tenant.step if elapsed > tenant.step_at else 1.0)
            * tenant.branch_factors[branch]
            * (1 + 0.03 * np.log1p(lines))
        )
        slowed = bool(generator.random() < 0.03)
        full = median * np.exp(generator.normal(0.0, NOISE_SIGMA)) * (generator.uniform(1.5, 2.5) if slowed else 1.0)
        passed = bool(generator.random() >= tenant.failure_rate)
        duration = max(1.0, round(full if passed else full * generator.uniform(0.1, 0.9), 3))
        build_id = f"{tenant.name}-{index:06d}"
        context = _context(tenant, branch, lines, queued, generator)
        yield (
            *_events(tenant.name, build_id, context, queued, duration, passed),
            Truth(tenant.name, build_id, float(median), duration, passed, slowed),
        )


def _context(
    tenant: _Tenant, branch: int, lines: int, queued: datetime, generator: np.random.Generator
) -> BuildContext:
    files = 1 + lines // 40
    context = BuildContext(
        repository=f"{tenant.name}/service",
        pipeline="ci",
        branch="main" if branch == 0 else f"feature/{branch}",
        trigger=BuildTrigger.BUILD_TRIGGER_PUSH if branch == 0 else BuildTrigger.BUILD_TRIGGER_PULL_REQUEST,
        actor=f"developer-{int(generator.integers(1, 9))}",
        change=ChangeSet(
            modified_file_count=files,
            added_line_count=lines,
            deleted_line_count=lines // 3,
            source_file_count=files,
            file_extensions=[".py"],
        ),
        repository_state=RepositoryState(source_line_count=80_000, commit_count=4_000, language="Python"),
    )
    context.queued_time.FromDatetime(queued)
    return context


def _events(
    tenant: str, build_id: str, context: BuildContext, queued: datetime, duration: float, passed: bool
) -> tuple[Event, Event]:
    ended = queued + timedelta(seconds=duration)
    completed = BuildCompleted(
        build_id=build_id,
        repository=context.repository,
        pipeline=context.pipeline,
        branch=context.branch,
        outcome=BuildOutcome.BUILD_OUTCOME_SUCCESS if passed else BuildOutcome.BUILD_OUTCOME_FAILURE,
        queued_time=context.queued_time,
    )
    completed.completed_time.FromDatetime(ended)
    completed.duration.FromTimedelta(ended - queued)

    def event(kind: str, time: datetime, data: BuildQueued | BuildCompleted) -> Event:
        return Event(time, kind, f"{build_id}/{kind.rpartition('.')[2]}", "/simulation", tenant, build_id, data)

    return (
        event("build.queued", queued, BuildQueued(build_id=build_id, context=context)),
        event("build.completed", ended, completed),
    )
