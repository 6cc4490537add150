"""Runs of tests with known structure, and what a frame makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from google.protobuf import json_format

from conductor.events.v1 import test_pb2
from conductor_training.test_failure.columns import INDEX
from conductor_training.test_failure.frame import Run, TestFrame, frame_of_runs

DAY = 86_400.0


def make_runs(runs: int = 100, tests: int = 20, seed: int = 1, *, touched: bool = True) -> list[Run]:
    """A run every 6 hours. Tests fail at rates of their own, and, if ``touched``, when their file was changed."""
    generator = np.random.default_rng(seed)
    rates = generator.beta(0.5, 10, tests)
    names = [f"t{number:02d}" for number in range(tests)]
    made = []
    for number in range(runs):
        changed = [name for name in names if generator.random() < 0.1]
        chances = np.where(touched & np.isin(names, changed), 0.5, rates)
        started = number * DAY / 4
        made.append(
            Run(
                tenant_id="acme",
                run_id=f"r{number}",
                repository="acme/shop",
                started=started,
                completed=started + 60.0,
                changed_paths=changed,
                tests=names,
                outcomes=(generator.random(tests) < chances).astype(np.float64),
                durations=generator.lognormal(1, 1, tests),
            )
        )
    return made


def as_events(runs: Sequence[Run], start: int = 1_700_000_000) -> list[bytes]:
    """The events that tell of runs, from ``start`` (epoch s) on; times to the second, durations to the millisecond."""
    told = []
    for run in runs:
        data = test_pb2.TestCompleted(run_id=run.run_id, repository=run.repository, changed_paths=run.changed_paths)
        for name, moment in (("started_time", run.started), ("completed_time", run.completed)):
            getattr(data, name).FromSeconds(int(moment) + start)
        for test, outcome, duration in zip(run.tests, run.outcomes, run.durations, strict=True):
            result = data.results.add(test_id=test, outcome=2 if outcome else 1)
            result.duration.FromMilliseconds(int(duration * 1000))
        time = datetime.fromtimestamp(run.completed + start, UTC).isoformat()
        event = {"specversion": "1.0", "type": "test.completed", "id": run.run_id, "source": "ci", "time": time}
        told.append({**event, "tenantid": run.tenant_id, "data": json_format.MessageToDict(data)})
    return [json.dumps(event).encode() for event in told]


def value(frame: TestFrame, run: int, test: str, column: str) -> float:
    (row,) = np.flatnonzero((frame.run == run) & (frame.test == test))
    return float(frame.inputs[row, INDEX[column]])


def run(number: int, tests: list[str], outcomes: list[float], **more: object) -> Run:
    made = Run(
        "acme",
        f"r{number}",
        "acme/shop",
        number * 100.0,
        number * 100.0 + 50,
        [],
        tests,
        np.array(outcomes),
        np.full(len(tests), 3.0),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_row_knows_what_had_ended_before_its_run_began() -> None:
    frame = frame_of_runs([run(0, ["a", "b"], [1, 0]), run(1, ["a", "a", "c"], [1, 0, 0]), run(2, ["a"], [0])])
    assert list(frame.run) == [0, 0, 1, 1, 2]
    assert np.isnan(value(frame, 0, "a", "test.failure_rate_2"))
    assert value(frame, 0, "a", "test.run_count") == 0
    assert value(frame, 1, "a", "test.failure_rate_2") == 1
    assert value(frame, 1, "a", "test.seconds_since_last_run") == 50
    assert value(frame, 2, "a", "test.run_count") == 3
    assert value(frame, 2, "a", "test.failure_rate_2") == 0.5  # 1, then 1, then 0
    assert value(frame, 2, "a", "test.rerun_flip_count") == 1
    assert list(frame.result_count[2:4]) == [2, 1] and list(frame.failed_count[2:4]) == [1, 0]


def test_a_run_that_is_still_going_on_is_not_known_and_neither_are_other_repositories() -> None:
    slow = run(0, ["a"], [1], completed=150.0)
    other = run(0, ["a"], [1], repository="acme/other", run_id="other")
    frame = frame_of_runs([slow, other, run(1, ["a"], [0]), run(2, ["a"], [0])])
    counts = [float(frame.inputs[row, INDEX["test.run_count"]]) for row in range(len(frame.run))]
    assert counts == [0, 0, 0, 2]


def test_skipped_results_make_no_rows_and_old_rows_count_as_missing() -> None:
    late = run(0, ["a", "b"], [0, 1], started=400 * DAY, completed=400 * DAY + 1, run_id="late")
    frame = frame_of_runs([run(0, ["a", "b"], [1, 2]), run(1, ["b"], [2]), late])
    assert list(frame.test) == ["a", "a", "b"]
    assert np.isnan(value(frame, 2, "a", "test.failure_rate_2"))


def test_changes_tell_of_their_paths_and_of_what_failed_with_them() -> None:
    first = run(0, ["a", "b"], [1, 0], changed_paths=["x.py"])
    second = run(1, ["a", "b"], [0, 0], changed_paths=["x.py", "b"])
    frame = frame_of_runs([first, second, run(2, ["a", "b"], [0, 0], changed_paths=["x.py"]), run(3, ["a"], [0])])
    assert np.isnan(value(frame, 0, "a", "path_failure_share"))
    assert value(frame, 1, "a", "path_failure_share") == 1 and value(frame, 1, "b", "path_failure_share") == 0
    assert [value(frame, 1, test, "is_test_changed_v2") for test in "ab"] == [0, 1]
    assert value(frame, 2, "a", "path_failure_share") == 0.5
    assert value(frame, 2, "a", "path_failed_run_rate") == pytest.approx(0.9)
    assert np.isnan(value(frame, 3, "a", "changed_path_count"))


def test_what_happens_later_changes_no_row() -> None:
    runs = make_runs(runs=12)
    whole, cut = frame_of_runs(runs), frame_of_runs(runs[:8])
    np.testing.assert_array_equal(whole.inputs[whole.run < 8], cut.inputs)
    turned = [*runs[:8], *(replace(late, outcomes=1 - late.outcomes) for late in runs[8:])]
    again = frame_of_runs(turned)
    np.testing.assert_array_equal(again.inputs[again.run <= 8], whole.inputs[whole.run <= 8])
