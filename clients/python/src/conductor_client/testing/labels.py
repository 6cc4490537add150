"""What every answer about tests carries: where it comes from, and what it rests on."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conductor.prediction.v1 import provenance_pb2
from conductor.testing.v1 import test_run_pb2
from conductor_client.predictions import FallbackReason, PredictionMethod, Variant
from conductor_client.testing.enums import ChangeBasis, ImpactBasis


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from."""

    method: PredictionMethod
    fallback_reason: FallbackReason
    variant: Variant
    model_name: str
    """Empty for none."""
    model_version: str
    model_digest: str
    oldest_feature_age: timedelta | None
    """None if no feature row was used."""
    missing_features: tuple[str, ...]
    prediction_id: str
    prediction_time: datetime


@dataclass(frozen=True)
class Basis:
    """What an answer about tests rests on, beside the model."""

    change: ChangeBasis
    impact: ImpactBasis
    graph_commit_sha: str
    """Commit of the code graph that was used; empty for none."""
    never_run_count: int
    """Tests without any result yet: judged by what tests do at their first run."""
    unreadable_count: int
    """Tests whose history could not be read: judged as if there was none, and never left out."""
    unplaced_paths: tuple[str, ...]
    """Changed files that may reach anything: dependencies, build scripts, CI."""
    diff_problems: tuple[str, ...]
    """What of the diff could not be read, "path: reason"."""
    known_tests_cut: bool
    """The request named no tests, and the repository has more than a server holds: nothing is said of the others."""
    known_tests_filling: bool
    """The request named no tests, and the list of them is being filled in: there may be more."""


def provenance(message: provenance_pb2.Provenance) -> Provenance:
    """Read it."""
    aged = message.HasField("oldest_feature_age")
    return Provenance(
        method=PredictionMethod(message.method),
        fallback_reason=FallbackReason(message.fallback_reason),
        variant=Variant(message.variant),
        model_name=message.model_name,
        model_version=message.model_version,
        model_digest=message.model_digest,
        oldest_feature_age=message.oldest_feature_age.ToTimedelta() if aged else None,
        missing_features=tuple(message.missing_features),
        prediction_id=message.prediction_id,
        prediction_time=message.prediction_time.ToDatetime(tzinfo=UTC),
    )


def basis(message: test_run_pb2.TestBasis) -> Basis:
    """Read it."""
    return Basis(
        change=ChangeBasis(message.change),
        impact=ImpactBasis(message.impact),
        graph_commit_sha=message.graph_commit_sha,
        never_run_count=message.never_run_count,
        unreadable_count=message.unreadable_count,
        unplaced_paths=tuple(message.unplaced_paths),
        diff_problems=tuple(message.diff_problems),
        known_tests_cut=message.known_tests_cut,
        known_tests_filling=message.known_tests_filling,
    )
