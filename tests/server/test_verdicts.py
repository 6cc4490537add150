"""Verdicts on one failure: the rules over messages, and how what happened in the run moves what the past says."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_server.testing import infrastructure
from conductor_server.testing.answers import FlakyStatus, NextStep, Verdict
from conductor_server.testing.questions import Failure, TestRun
from conductor_server.testing.verdicts import Past, judge, next_step

RUN = TestRun("acme", "acme/shop", 0, past_only=False, test_ids=("t",))
GROWTH, TRIES = 2.8, 8
"""Of the time, with twice the message. Twice is as it should be; four times, and it grows with the square."""
LONG_MESSAGE = 80_000
"""So long that such a pattern takes most of the time."""
MESSAGES = {
    "runner-lost": "The hosted runner lost communication with the server.",
    "disk-full": "OSError: [Errno 28] No space left on device: '/tmp/x'",
    "name-resolution": "curl: (6) Could not resolve host: repo.example",
    "package-registry": "Downloading from the package registry failed with 503",
    "out-of-memory": "Process completed with exit code 137",
    "connection": "ConnectionRefusedError: [Errno 111] Connection refused",
    "remote-timeout": "requests.exceptions.ReadTimeout: read timed out",
    "resource-limit": "OSError: [Errno 24] Too many open files",
    "device": "PermissionError: [Errno 13] Permission denied: '/dev/kvm'",
}


def failure(message: str = "", **told: object) -> Failure:
    known = dict.fromkeys(
        ("attempt_count", "passed_attempt_count", "failed_test_count", "executed_test_count", "seconds")
    )
    return Failure(RUN, message, **{**known, **told})  # type: ignore[arg-type]


def past(flaky: float = 0.3, **told: object) -> Past:
    known = {
        "state": FlakyStatus.NOT_FLAKY, "usual_seconds": math.nan, "failed_before": False, "failure_rate": 0.01,
        "is_reached": False,
    }  # fmt: skip
    return Past(flaky, **{**known, **told})  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [rule.id for rule in infrastructure.RULES])
def test_each_rule_knows_its_message(rule: str) -> None:
    [first, *_] = infrastructure.matching(MESSAGES[rule])
    assert first.id == rule


@pytest.mark.parametrize(
    "message",
    [
        "AssertionError: 90 != 100",
        "expected <out of stock> but was <in stock>",
        "TimeoutError: the test took longer than 30 s",
        "java.lang.NullPointerException at Connection.open",
        "assert response.status == 200, got 404 from registry.example",
    ],
)
def test_ordinary_failures_are_none_of_the_infrastructure(message: str) -> None:
    assert infrastructure.matching(message) == []


ADVERSARIAL = [
    pattern * (10_000 // len(pattern) + 1)
    for pattern in (
        "pypi", "registry ", "connection ", "connect time", "dial tcp ", "lost connection to the ", "exit code ",
        "node was ",
        "getaddrinfo ", "exited with status: 13", "a", "\n", "no space left on devic", "İ", "\U0001f4a5",
    )
]  # fmt: skip


@pytest.mark.parametrize("message", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_no_message_takes_long(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time grows with the message and no faster. Tried again: a stall of the machine does not come back."""
    monkeypatch.setattr(infrastructure, "LONGEST_MESSAGE", LONG_MESSAGE)
    whole = (message * (LONG_MESSAGE // len(message) + 1))[:LONG_MESSAGE]

    def seconds(text: str) -> float:
        begin = time.thread_time()
        infrastructure.matching(text)
        return time.thread_time() - begin

    assert any(seconds(whole) < GROWTH * seconds(whole[: LONG_MESSAGE // 2]) for _ in range(TRIES))


def test_only_the_beginning_of_a_message_is_looked_at() -> None:
    inside = "x" * (infrastructure.LONGEST_MESSAGE - 30)
    assert infrastructure.matching(f"{inside} connection refused")
    assert not infrastructure.matching(f"{inside}{'x' * 30} connection refused")


def test_passed_again_is_flaky_whatever_the_past() -> None:
    judged = judge(failure(attempt_count=2, passed_attempt_count=1), past(flaky=0.0))
    assert judged.real == 0.0 and judged.verdict is Verdict.FLAKY


def test_failing_at_every_attempt_speaks_for_real_by_bayes() -> None:
    judged = judge(failure(attempt_count=3, passed_attempt_count=0), past(flaky=0.8))
    # 0.8 × 0.4² against 0.2
    assert judged.flaky / judged.real == pytest.approx(0.128 / 0.2)
    assert judged.verdict is Verdict.REAL


def test_without_anything_told_the_pasts_odds_remain() -> None:
    judged = judge(failure(), past(flaky=0.3))
    assert judged.flaky / (judged.flaky + judged.real) == pytest.approx(0.3)
    assert judged.infrastructure == pytest.approx(0.02 / 1.02)


def test_many_at_once_speak_for_the_infrastructure() -> None:
    some = judge(failure(failed_test_count=9, executed_test_count=20), past())
    many = judge(failure(failed_test_count=10, executed_test_count=20), past())
    assert many.infrastructure == pytest.approx(0.1 / 1.1) and some.infrastructure == pytest.approx(0.02 / 1.02)
    assert many.flaky / many.real == pytest.approx(0.2 * some.flaky / some.real)


def test_the_strongest_rule_counts_once() -> None:
    both = judge(failure("connection refused\nno space left on device"), past())
    assert both.infrastructure == judge(failure("no space left on device"), past()).infrastructure
    assert both.verdict is Verdict.INFRASTRUCTURE
    assert both.infrastructure == pytest.approx(4 / 5)


def test_a_failure_that_took_far_longer_than_the_test_does() -> None:
    long = judge(failure(seconds=60.0), past(usual_seconds=2.0))
    assert long.infrastructure == pytest.approx(0.04 / 1.04)
    for took, usual in ((60.0, 20.0), (9.0, 0.1), (60.0, math.nan)):
        assert judge(failure(seconds=took), past(usual_seconds=usual)).evidence == ()


def test_what_can_not_be_told_is_not_told() -> None:
    assert judge(failure(), past(flaky=0.5)).verdict is Verdict.UNKNOWN


def test_no_evidence_shows_the_message() -> None:
    secret = "password=hunter2"
    judged = judge(failure(f"connection refused by db {secret} exit code 137 too many open files"), past())
    assert len(judged.evidence) == 3
    assert not any("hunter2" in says or "db" in says for _, says in judged.evidence)


@given(
    flaky=st.floats(0, 1),
    attempts=st.none() | st.integers(0, 50),
    passed=st.none() | st.integers(0, 50),
    failed=st.none() | st.integers(0, 20_000),
    executed=st.none() | st.integers(0, 20_000),
    seconds=st.none() | st.floats(0, 1e6),
    usual=st.floats(0, 1e6) | st.just(math.nan),
    message=st.sampled_from(["", *MESSAGES.values()]),
)
def test_probabilities_add_up_whatever_is_told(
    flaky: float, attempts: int | None, passed: int | None, failed: int | None, executed: int | None,
    seconds: float | None, usual: float, message: str,
) -> None:  # fmt: skip
    told = failure(
        message, attempt_count=attempts, passed_attempt_count=passed, failed_test_count=failed,
        executed_test_count=executed, seconds=seconds,
    )  # fmt: skip
    judged = judge(told, past(flaky, usual_seconds=usual))
    parts = (judged.real, judged.flaky, judged.infrastructure)
    assert all(0 <= part <= 1 for part in parts) and sum(parts) == pytest.approx(1)


@pytest.mark.parametrize(
    ("told", "known", "expected"),
    [
        (failure("no space left on device"), past(), NextStep.RERUN_JOB),
        (failure(), past(0.1, failed_before=True), NextStep.RERUN_TEST),
        (failure(attempt_count=1), past(), NextStep.RERUN_TEST),
        (failure(attempt_count=2, passed_attempt_count=1), past(failure_rate=0.2), NextStep.QUARANTINE),
        (failure(attempt_count=2, passed_attempt_count=1), past(state=FlakyStatus.ACTIVE), NextStep.QUARANTINE),
        (failure(attempt_count=2, passed_attempt_count=1), past(failure_rate=0.01), NextStep.NONE),
        (
            failure(attempt_count=2, passed_attempt_count=1),
            past(failure_rate=0.2, state=FlakyStatus.QUARANTINED),
            NextStep.NONE,
        ),
        (failure(attempt_count=3), past(failed_before=True, is_reached=True), NextStep.BISECT),
        (failure(attempt_count=3), past(is_reached=True), NextStep.INSPECT_CHANGE),
        (failure(attempt_count=3), past(), NextStep.NONE),
    ],
)
def test_the_cheapest_next_step(told: Failure, known: Past, expected: NextStep) -> None:
    assert next_step(told, known, judge(told, known)) is expected
