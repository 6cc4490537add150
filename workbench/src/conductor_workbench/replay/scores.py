"""Figures of a replay: errors, coverage, the naive rules beside them, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from conductor_workbench.replay.history import Outcome
from conductor_workbench.replay.naive import RULES


@dataclass(frozen=True)
class Answer:
    """One prediction of a replay, beside what came of it."""

    project: str
    build_id: str
    queued_time: datetime
    latency_seconds: float
    """From the moment at which the request was due to the answer."""
    error: str = ""
    """Reason, when there was no answer."""
    median_seconds: float = float("nan")
    lower_seconds: float = float("nan")
    upper_seconds: float = float("nan")
    coverage: float = 0.0
    method: str = ""
    model_version: str = ""
    naive: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None

    @property
    def actual_seconds(self) -> float | None:
        """The duration, if the build passed and it is known."""
        return self.outcome.duration_seconds if self.outcome and self.outcome.passed else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "queued_time": self.queued_time.isoformat(),
            "outcome": self.outcome.outcome if self.outcome else None,
            "ended_seconds": self.outcome.duration_seconds if self.outcome else None,
            "completed_time": self.outcome.completed_time.isoformat() if self.outcome else None,
        }


def errors(predicted: Sequence[float], actual: Sequence[float]) -> dict[str, float]:
    """Errors of predictions against durations, both in seconds and of shape [n]. APE is a share: 0.1 is 10 %."""
    difference = np.abs(np.asarray(predicted) - np.asarray(actual))
    # A build may end within the clock's resolution.
    relative = difference / np.maximum(np.asarray(actual), 1e-3)
    return {
        "mae_seconds": float(difference.mean()),
        "mdae_seconds": float(np.median(difference)),
        "mape": float(relative.mean()),
        "mdape": float(np.median(relative)),
        "rmse_seconds": float(np.sqrt((difference**2).mean())),
    }


def score_project(answers: Sequence[Answer]) -> dict[str, Any]:
    """Figures of one project. Errors and coverage are over the builds that passed; see docs/replay.md."""
    answered = [answer for answer in answers if not answer.error]
    judged = [(answer, answer.actual_seconds) for answer in answered if answer.actual_seconds is not None]
    score: dict[str, Any] = {
        "asked": len(answers),
        "answered": len(answered),
        "passed": len(judged),
        "methods": dict(Counter(answer.method for answer in answered)),
    }
    if not judged:
        return score
    actual = [seconds for _, seconds in judged if seconds is not None]
    score["model"] = errors([answer.median_seconds for answer, _ in judged], actual)
    score["interval"] = _interval([answer for answer, _ in judged], actual)
    comparable = [(answer, seconds) for answer, seconds in judged if answer.naive and seconds is not None]
    if comparable:
        score["naive"] = {
            rule: errors([answer.naive[rule] for answer, _ in comparable], [seconds for _, seconds in comparable])
            for rule in RULES
        }
        best = min(RULES, key=lambda rule: score["naive"][rule]["mae_seconds"])
        like_for_like = errors(
            [answer.median_seconds for answer, _ in comparable], [seconds for _, seconds in comparable]
        )
        score["best_naive"] = best
        score["mae_over_best_naive"] = _ratio(like_for_like["mae_seconds"], score["naive"][best]["mae_seconds"])
    not_passed = [answer for answer in answered if _ended_otherwise(answer)]
    if not_passed:
        score["ended_without_passing"] = {
            "builds": len(not_passed),
            **errors(
                [answer.median_seconds for answer in not_passed],
                [answer.outcome.duration_seconds or 0.0 for answer in not_passed if answer.outcome],
            ),
        }
    return score


def _ended_otherwise(answer: Answer) -> bool:
    return answer.outcome is not None and not answer.outcome.passed and answer.outcome.duration_seconds is not None


def _interval(answers: Sequence[Answer], actual: Sequence[float]) -> dict[str, float]:
    lower = np.array([answer.lower_seconds for answer in answers])
    upper = np.array([answer.upper_seconds for answer in answers])
    truth = np.asarray(actual)
    return {
        "claimed": float(np.mean([answer.coverage for answer in answers])),
        "coverage": float(((truth >= lower) & (truth <= upper)).mean()),
        "below": float((truth < lower).mean()),
        "above": float((truth > upper).mean()),
        "mean_relative_width": float(((upper - lower) / [answer.median_seconds for answer in answers]).mean()),
    }


def _ratio(value: float, reference: float) -> float:
    # Two rules without an error are equal.
    return value / reference if reference > 0 else (1.0 if value == 0 else float("inf"))


def latency(answers: Sequence[Answer]) -> dict[str, float]:
    """Percentiles of the latency in seconds, over all requests whether answered or not."""
    seconds = np.array([answer.latency_seconds for answer in answers])
    if not len(seconds):
        return {}
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(seconds.max())}


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Figures by project, and over all of them: medians over projects, so that a large one doesn't drown the others."""
    projects = {
        project: score_project([answer for answer in answers if answer.project == project])
        for project in sorted({answer.project for answer in answers})
    }
    judged = [score for score in projects.values() if "model" in score]
    compared = [score for score in judged if "mae_over_best_naive" in score]
    overall: dict[str, Any] = {
        "asked": len(answers),
        "answered": sum(score["answered"] for score in projects.values()),
        "errors": dict(Counter(answer.error for answer in answers if answer.error)),
    }
    if judged:
        overall["median_mape"] = float(np.median([score["model"]["mape"] for score in judged]))
        overall["coverage_range"] = [
            min(score["interval"]["coverage"] for score in judged),
            max(score["interval"]["coverage"] for score in judged),
        ]
    if compared:
        ratios = [score["mae_over_best_naive"] for score in compared]
        overall["worst_mae_over_best_naive"] = max(ratios)
        overall["projects_better_than_best_naive"] = sum(ratio < 1.0 for ratio in ratios)
        overall["projects_compared"] = len(ratios)
    return {"overall": overall, "latency_seconds": latency(answers), "projects": projects}
