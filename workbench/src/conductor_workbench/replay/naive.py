"""The naive rules that every model must beat, on what had ended when the build was queued."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Mapping

from conductor_workbench.replay.history import Build, Outcome

RULES = ("last", "mean7", "median7", "median_all")

_Pipeline = tuple[str, str, str]


class NaiveRules:
    """Rules over the passed builds of a pipeline whose end has been told so far."""

    def __init__(self) -> None:
        self._recent: defaultdict[_Pipeline, deque[float]] = defaultdict(lambda: deque(maxlen=7))
        self._all: defaultdict[_Pipeline, list[float]] = defaultdict(list)

    def observe(self, build: Build, outcome: Outcome) -> None:
        """Tell that a build has ended."""
        if outcome.passed and outcome.duration_seconds is not None:
            self._recent[_pipeline(build)].append(outcome.duration_seconds)
            self._all[_pipeline(build)].append(outcome.duration_seconds)

    def predict(self, build: Build) -> Mapping[str, float]:
        """Seconds by rule; empty while no build of the pipeline has passed."""
        recent = self._recent[_pipeline(build)]
        if not recent:
            return {}
        return {
            "last": recent[-1],
            "mean7": statistics.fmean(recent),
            "median7": statistics.median(recent),
            "median_all": statistics.median(self._all[_pipeline(build)]),
        }


def _pipeline(build: Build) -> _Pipeline:
    return build.tenant_id, build.context.repository, build.context.pipeline
