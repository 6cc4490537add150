"""Replay: nothing of the future reaches an answer, and the figures are what they say."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.events_file import write_events
from conductor_workbench.replay.embedded import ReplayResult, replay_on
from conductor_workbench.replay.history import Build, History, Outcome, read_history
from conductor_workbench.replay.naive import NaiveRules
from conductor_workbench.replay.scores import Answer, score_project, summarise
from conductor_workbench.replay.timeline import Ask, Deliver, Train, timeline
from conductor_workbench.simulate.builds import Simulation, simulate
from databases import migrated

pytestmark = pytest.mark.long

START = datetime(2025, 1, 1, tzinfo=UTC)


def history_of(simulation: Simulation, path: Path) -> History:
    write_events((event for queued, completed, _ in simulate(simulation) for event in (queued, completed)), path)
    return read_history([path])


@given(share=st.floats(0, 1), tenants=st.integers(1, 3), builds=st.integers(1, 25), seed=st.integers(0, 50))
@settings(max_examples=25)
def test_the_timeline_tells_everything_before_and_nothing_after(
    tmp_path_factory: pytest.TempPathFactory, share: float, tenants: int, builds: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("timeline") / "events.ndjson"
    history = history_of(Simulation(tenants=tenants, builds=builds, days=3, seed=seed), path)
    cuts = history.cuts(share)
    told: set[str] = set()
    trained: set[str] = set()
    asked: list[str] = []
    for step in timeline(history, cuts):
        match step:
            case Deliver(events):
                told |= {event.id for event in events}
            case Train(tenant, until):
                assert until == cuts[tenant]
                trained.add(tenant)
            case Ask(build):
                assert build.tenant_id in trained
                asked.append(build.build_id)
                expected = {event.id for time, event in history.events if time < build.queued_time}
                assert told == expected
    assert told == {event.id for _, event in history.events}
    assert asked == [build.build_id for build in history.builds if build.queued_time >= cuts[build.tenant_id]]


def build(number: int, queued_minute: float, duration: float | None, passed: bool = True) -> Build:
    queued = START + timedelta(minutes=queued_minute)
    ended = queued + timedelta(seconds=duration or 1)
    outcome = Outcome(ended, passed, duration, "success" if passed else "failure")
    return Build("acme", str(number), BuildContext(repository="r", pipeline="p"), queued, outcome)


def test_naive_rules_know_only_builds_that_passed() -> None:
    rules = NaiveRules()
    assert rules.predict(build(0, 0, 1.0)) == {}
    for number, (duration, passed) in enumerate(
        [(100.0, True), (5.0, False), (None, True), (200.0, True), (600.0, True)]
    ):
        ended = build(number, number, duration, passed)
        assert ended.outcome
        rules.observe(ended, ended.outcome)
    assert rules.predict(build(9, 9, 1.0)) == {"last": 600.0, "mean7": 300.0, "median7": 200.0, "median_all": 200.0}


def test_figures_by_hand() -> None:
    def answer(median: float, ended: Build, **more: object) -> Answer:
        return replace(
            Answer("acme:r", ended.build_id, ended.queued_time, 0.01, outcome=ended.outcome),
            median_seconds=median, lower_seconds=median * 0.5, upper_seconds=median * 1.5, coverage=0.9, method="model",
            **more,  # type: ignore[arg-type]
        )  # fmt: skip

    naive = {"last": 120.0, "mean7": 120.0, "median7": 120.0, "median_all": 120.0}
    answers = [
        answer(100.0, build(1, 0, 110.0), naive=naive),
        answer(100.0, build(2, 1, 200.0), naive=naive),
        answer(100.0, build(3, 2, 10.0, passed=False), naive=naive),
        Answer("acme:r", "4", START, 0.05, error="OVERLOADED", naive=naive, outcome=build(4, 3, 50.0).outcome),
    ]
    score = score_project(answers)
    assert (score["asked"], score["answered"], score["passed"]) == (4, 3, 2)
    assert score["model"]["mae_seconds"] == pytest.approx(55.0)
    assert score["model"]["mape"] == pytest.approx((10 / 110 + 100 / 200) / 2)
    assert score["interval"]["coverage"] == 0.5
    assert score["interval"]["above"] == 0.5
    assert score["naive"]["last"]["mae_seconds"] == pytest.approx(45.0)
    assert score["mae_over_best_naive"] == pytest.approx(55 / 45)
    assert score["ended_without_passing"]["builds"] == 1
    summary = summarise(answers)
    assert summary["overall"]["errors"] == {"OVERLOADED": 1}
    assert summary["latency_seconds"]["max"] == 0.05


def test_a_file_that_is_no_events_is_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "bad.ndjson").write_text('{"type": "x"\n')
    with pytest.raises(ValueError, match=r"bad.ndjson:1: not JSON"):
        read_history([tmp_path / "bad.ndjson"])


Replayed = Callable[..., ReplayResult]


@pytest.fixture
def replayed(embedded_postgres: EmbeddedPostgres, embedded_redis: EmbeddedRedis, tmp_path: Path) -> Replayed:
    """Replays on a platform that is empty at first; database and Redis are the session's."""

    def replay(history: History, rate: float | None = None) -> ReplayResult:
        with redis.Redis.from_url(embedded_redis.url) as client:
            client.flushall()
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        with migrated(embedded_postgres) as database_url:
            settings = PlatformSettings(directory, database_url=database_url, redis_url=embedded_redis.url)
            with Platform(settings, environment={"CONDUCTOR_GRACE_SECONDS": "0"}) as platform:
                return replay_on(platform, history, 0.8, rate=rate)

    return replay


def test_a_replay_is_right_and_a_changed_future_changes_no_answer(replayed: Replayed, tmp_path: Path) -> None:
    simulation = Simulation(tenants=2, builds=160, days=20, seed=11)
    history = history_of(simulation, tmp_path / "events.ndjson")
    result = replayed(history)
    summary = result.summary()
    assert summary["overall"]["answered"] == summary["overall"]["asked"] == len(result.answers) > 30
    project = summary["projects"]["tenant-000/service"]
    assert project["methods"] == {"model": project["asked"]}
    assert project["model"]["mape"] < 0.15
    assert json.dumps(summary)

    # The same history, but everything that ends after the middle of the replayed part takes ten times as long.
    middle = result.answers[len(result.answers) // 2].queued_time
    lines = [json.loads(line) for line in (tmp_path / "events.ndjson").read_text().splitlines()]
    for line in lines:
        if line["type"] == "build.completed" and datetime.fromisoformat(line["time"]) >= middle:
            ended = datetime.fromisoformat(line["data"]["queuedTime"]) + timedelta(hours=12)
            line["data"]["duration"] = "43200s"
            line["time"] = line["data"]["completedTime"] = ended.isoformat().replace("+00:00", "Z")
    lines.sort(key=lambda line: line["time"])
    (tmp_path / "changed.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changed = replayed(read_history([tmp_path / "changed.ndjson"]))

    def told(answers: list[Answer], before: bool) -> list[tuple[str, float, float, float]]:
        return [
            (answer.build_id, answer.lower_seconds, answer.median_seconds, answer.upper_seconds)
            for answer in answers
            if (answer.queued_time <= middle) == before
        ]

    assert told(changed.answers, before=True) == told(result.answers, before=True)
    assert told(changed.answers, before=False) != told(result.answers, before=False)


def test_open_loop_asks_at_its_rate_and_loses_nothing(replayed: Replayed, tmp_path: Path) -> None:
    history = history_of(Simulation(tenants=1, builds=150, days=20, seed=12), tmp_path / "events.ndjson")
    result = replayed(history, 50.0)
    assert len(result.answers) == 30
    assert not any(answer.error for answer in result.answers)
    assert {answer.method for answer in result.answers} == {"model"}
