"""What is told of a flaky test: its state, what speaks for it, and what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conductor_features import flakiness as rules
from conductor_server.testing.answers import FlakyFacts, FlakyStatus
from conductor_server.testing.rows import Mask, Rows


@dataclass(frozen=True)
class Known:
    """What the feature store knows of tests that are, were or might be flaky; one row of each view for each test."""

    flaky: Rows
    """Of ``test_flakiness``."""
    history: Rows
    """Of ``test_history``."""
    moment: float
    """The question's time, in epoch s."""

    @cached_property
    def fixed(self) -> Mask:
        """Which were active and have ceased to be. Without a readable history a test is what it was."""
        return rules.is_fixed(
            self.flaky.field("last_failure_time"),
            self.flaky.field("last_active_failure_time"),
            self.history.field("runs_since_failure"),
            self.moment,
        )

    @cached_property
    def states(self) -> NDArray[np.int64]:
        """Of each a :class:`FlakyStatus`."""
        quarantined = rules.is_quarantined(self.flaky.field("quarantined_time"), self.flaky.field("released_time"))
        return rules.state_of(self.flaky.field("last_active_failure_time"), self.fixed, quarantined)


def facts_of(known: Known, index: int) -> FlakyFacts | None:
    """What speaks for or against one test's flakiness; None where nothing is known of its results."""
    history = known.history
    if not history.usable[index]:
        return None

    def of(name: str) -> float:
        value = float(history.field(name)[index])
        return 0.0 if math.isnan(value) else value

    flipped = float(history.field("last_flip_time")[index])
    return FlakyFacts(
        run_count=int(of("run_count")),
        failure_count=int(of("failure_count")),
        flip_count=int(of("flip_count")),
        rerun_flip_count=int(of("rerun_flip_count")),
        flip_rate=of("flip_rate_20"),
        outcome_entropy=entropy_bits(of("failure_rate_10")),
        last_flip_seconds=None if math.isnan(flipped) else flipped,
        runs_since_flip=_runs_since_flip(known, index),
    )


def entropy_bits(share: float) -> float:
    """Of failing or not, in bits."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if 0 < p < 1)


def _runs_since_flip(known: Known, index: int) -> int:
    history = known.history
    if math.isnan(history.field("last_flip_time")[index]):
        runs = history.field("run_count")[index]
    elif history.field("last_failed")[index] == 1:
        runs = known.flaky.field("failed_runs_in_a_row")[index] - 1
    else:
        runs = history.field("runs_since_failure")[index] - 1
    return 0 if math.isnan(runs) else max(int(runs), 0)


def timeline(known: Known, index: int) -> list[tuple[FlakyStatus, float]]:
    """When a test came into each state last, in epoch s, oldest first.

    While it is quarantined it comes into no other state; what came about meanwhile is so from its release on.
    """

    def of(name: str) -> float:
        return float(known.flaky.field(name)[index])

    came: dict[FlakyStatus, float] = {}
    if not math.isnan(active := of("active_time")):
        came[FlakyStatus.ACTIVE] = active
    if known.fixed[index]:
        came[FlakyStatus.FIXED] = rules.fixed_time(of("last_active_failure_time"))
    if not math.isnan(quarantined := of("quarantined_time")):
        if known.states[index] == FlakyStatus.QUARANTINED:
            came = {state: time for state, time in came.items() if time < quarantined}
        else:
            released = of("released_time")
            before = [state for state, time in sorted(came.items(), key=_time) if time <= released]
            came.update({before[-1]: released} if before else {})
        came[FlakyStatus.QUARANTINED] = quarantined
    return sorted(came.items(), key=_time)


def _time(item: tuple[FlakyStatus, float]) -> float:
    return item[1]
