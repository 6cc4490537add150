"""O6: the judge of these tests, shown what it must find."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from grpc import StatusCode

from conductor_client import PredictionMethod, Unavailable
from conductor_client.errors import ConductorError
from faults.scene import Reply, Scene, wrong

WRONGS = {
    "another build's answer": lambda mine, other: replace(
        mine, median=other.median, lower=other.lower, upper=other.upper
    ),
    "a microsecond": lambda mine, other: replace(mine, median=mine.median + timedelta(microseconds=1)),
    "a missing feature in a full answer": lambda mine, other: replace(mine, missing_features=("branch_builds_v1.x",)),
    "a coverage that is not held": lambda mine, other: replace(mine, coverage=0.95),
    "another model's name": lambda mine, other: replace(mine, model_name="models/build-duration/tenants/tenant-001"),
    "an older version": lambda mine, other: replace(mine, model_version="0" * 16),
    "a fallback that lacks nothing": lambda mine, other: replace(
        mine, method=PredictionMethod.HISTORY, missing_features=()
    ),
    "no label": lambda mine, other: replace(mine, method=PredictionMethod.UNSPECIFIED),
    "a fallback by another tenant's model": lambda mine, other: replace(
        mine,
        method=PredictionMethod.MODEL_DEGRADED,
        missing_features=("a.b",),
        model_name="models/build-duration/tenants/tenant-001",
    ),
    "bounds the wrong way round": lambda mine, other: replace(
        mine, method=PredictionMethod.HISTORY, missing_features=("a.b",), lower=mine.upper, upper=mine.lower
    ),
    "a fallback of another tenant's builds": lambda mine, other: replace(
        mine, method=PredictionMethod.HISTORY, missing_features=("a.b",), median=mine.median * 9, upper=mine.upper * 9
    ),
}


@pytest.mark.parametrize("name", WRONGS)
def test_a_wrong_answer_is_found(scene: Scene, name: str) -> None:
    number = next(n for n, question in enumerate(scene.questions) if question.tenant_id == "tenant-000")
    mine, other = scene.expected[number], scene.expected[number + 1]
    assert not wrong(scene, [Reply(number, 0.0, 0.0, mine)])
    assert wrong(scene, [Reply(number, 0.0, 0.0, WRONGS[name](mine, other))])


def test_errors_other_than_unavailable_are_found(scene: Scene) -> None:
    assert not wrong(scene, [Reply(0, 0.0, 0.0, error=Unavailable(StatusCode.UNAVAILABLE, ""))])
    for code in (StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED):
        assert wrong(scene, [Reply(0, 0.0, 0.0, error=ConductorError(code, ""))])


def test_questions_tell_builds_tenants_and_models_apart(scene: Scene) -> None:
    """If all answers were alike, mixing them up would go unseen."""
    by_tenant = {question.tenant_id for question in scene.questions}
    assert len(by_tenant) == 3
    assert len({answer.model_name for answer in scene.expected}) == 3, "two tenants' models and the global one"
    assert len(set(scene.expected)) > 0.75 * len(scene.expected)
    assert any(answer.missing_features for answer in scene.expected)
