"""The demo of test intelligence: its simulated history is as it says, and its figures are of what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome
from conductor_warehouse.events import Event as ParsedEvent
from conductor_warehouse.events import parse
from conductor_workbench.demo.tests.histories import Run
from conductor_workbench.demo.tests.judging import Asked, figures
from conductor_workbench.demo.tests.report import write_report
from conductor_workbench.events_file import Event
from conductor_workbench.simulate.tests import MOST_ATTEMPTS, TestSimulation, simulate_tests

SMALL = TestSimulation(files=12, tests_in_file=3, runs=80, days=20, flaky_share=0.1)
MOMENT = datetime(2025, 1, 1, tzinfo=UTC)


def _run(results: Sequence[tuple[str, bool, float]]) -> Run:
    """A run of these tests: name, failed, seconds."""
    data = TestCompleted(run_id="run-1", repository="octocat/shop")
    data.started_time.FromDatetime(MOMENT)
    for test, failed, seconds in results:
        outcome = TestOutcome.TEST_OUTCOME_FAILED if failed else TestOutcome.TEST_OUTCOME_PASSED
        data.results.add(test_id=test, outcome=outcome).duration.FromTimedelta(timedelta(seconds=seconds))
    return Run(Event(MOMENT + timedelta(hours=1), "test.completed", "1", "/tests", "octocat", "run-1", data))


def _asked(run: Run, selected: Sequence[bool], audited: Sequence[bool], rank: Sequence[float]) -> Asked:
    count = len(run.tests)
    return Asked(
        run=run,
        probabilities=np.full(count, 0.5),
        selected=np.array(selected),
        audited=np.array(audited),
        rank=np.array(rank, float),
        reasons=["it is likely enough"] * count,
        promise="calibrated",
        level=0.1,
        latency_seconds=0.01,
    )


def test_a_test_that_was_tried_again_is_one_test() -> None:
    run = _run([("a", True, 1.0), ("a", False, 2.0), ("b", False, 4.0)])
    assert list(run.tests) == ["a", "b"]
    assert run.failed.tolist() == [True, False]
    assert run.seconds.tolist() == [3.0, 4.0]


def test_what_is_missed_and_what_is_saved() -> None:
    first = _run([("a", False, 60.0), ("b", True, 60.0), ("c", True, 120.0), ("d", False, 360.0)])
    asked = [
        # b is found, c is missed, d is left out too.
        _asked(first, [True, True, False, False], [False] * 4, [1, 0, 2, 3]),
        # The audit finds c.
        _asked(first, [True, True, True, False], [False, False, True, False], [1, 0, 2, 3]),
        _asked(_run([("a", False, 60.0)]), [True], [False], [0]),
    ]
    found = figures(asked, 0.1)
    assert (found["runs"], found["runs_with_a_failure"], found["failures"], found["failures_missed"]) == (3, 2, 4, 1)
    assert found["miss_rate"] == pytest.approx(0.25)
    assert found["hours_saved"] * 3600 == pytest.approx(480 + 360)
    assert found["hours"] * 3600 == pytest.approx(1260)
    assert (found["audited"], found["left_out_by_the_goal"]) == (1, 4)
    assert found["orders"]["ordered"]["first_failure_minutes"] == pytest.approx(1.0)
    assert found["orders"]["as it ran"]["first_failure_minutes"] == pytest.approx(2.0)
    # b first of four, c third: 1 − (1 + 3)/(4 · 2) + 1/8.
    assert found["orders"]["ordered"]["apfd"] == pytest.approx(0.625)
    assert found["orders"]["as it ran"]["apfd"] == pytest.approx(0.5)


def test_the_page_tells_of_all_and_takes_names_as_text(tmp_path: Path) -> None:
    run = _run([("<script>a</script>", True, 60.0), ("b", False, 30.0)])
    asked = {"octocat": [_asked(run, [True, False], [False, False], [0, 1])]}
    flaky = [{"test": "<b>", "state": "active", "flaky_probability": 0.9, "rerun_flips": 3, "failures": 4, "runs": 9}]
    summary = {
        "source": "made up",
        "miss_rate": 0.1,
        "tenants": {"octocat": figures(asked["octocat"], 0.1) | {"flaky": flaky}},
        "finished_time": MOMENT.isoformat(),
    }
    path = tmp_path / "report.html"
    write_report(summary, asked, path)
    text = path.read_text()
    assert "&lt;script&gt;a" in text
    assert "<script>a" not in text
    assert "<td><b></td>" not in text
    assert "1 of 1" not in text.split("failing tests missed")[0].rsplit("<b>", 1)[1]


def test_the_simulated_history_is_one_that_the_warehouse_takes_and_is_as_it_says() -> None:
    simulated = list(simulate_tests(SMALL))
    assert len(simulated) == SMALL.runs
    ends = [event.time for event, _ in simulated]
    assert ends == sorted(ends)
    for event, truth in simulated:
        assert isinstance(parse(event.to_json().encode()), ParsedEvent)
        run = Run(event)
        assert len(run.tests) == SMALL.files * SMALL.tests_in_file
        failed = {test for test, is_failed in zip(run.tests, run.failed, strict=True) if is_failed}
        assert set(truth.flaky_failures) <= failed
        if not truth.broken_files and not truth.infrastructure:
            assert failed == set(truth.flaky_failures)
        attempts = [result.test_id for result in run.data.results]
        assert max(map(attempts.count, failed), default=0) <= MOST_ATTEMPTS
    assert any(truth.broken_files for _, truth in simulated)
    assert any(truth.flaky_failures for _, truth in simulated)


def test_the_same_settings_simulate_the_same() -> None:
    first, again = ([event.to_json() for event, _ in simulate_tests(SMALL)] for _ in range(2))
    assert first == again
