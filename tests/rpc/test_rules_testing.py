"""Field rules of questions about tests: each table, good and bad, and what they cost."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_rpc import rules
from conductor_rpc.exceptions import Violation
from conductor_rpc.rules.engine import Many, Names, Text

RUN = {"repository": "r"}
IDS = [f"tests/test_{number}.py::test_it" for number in range(20_000)]


def select(run: Any = RUN, **fields: Any) -> SelectTestsRequest:
    return SelectTestsRequest(**{"tenant_id": "acme", "run": run, "miss_rate": 0.05, **fields})


def predict(**run: Any) -> PredictTestFailuresRequest:
    return PredictTestFailuresRequest(tenant_id="acme", run=RUN | run)


def flaky(**fields: Any) -> ListFlakyTestsRequest:
    return ListFlakyTestsRequest(**{"tenant_id": "acme", "repository": "r", **fields})


def classify(**fields: Any) -> ClassifyFailureRequest:
    return ClassifyFailureRequest(**{"tenant_id": "acme", "run": RUN, "test_id": "t", **fields})


GOOD = [
    predict(test_ids=IDS, changed_files=[{"path": "p" * 512, "old_path": "o" * 512, "kind": 99}] * 5_000),
    predict(
        test_ids=["t" * 512], diff=bytes(2 << 20), commit_sha="c" * 64, start_time=Timestamp(seconds=1_700_000_000)
    ),
    PredictTestFailuresRequest(tenant_id="acme", run=RUN, explanation_count=100),
    PrioritizeTestsRequest(tenant_id="acme", run=RUN),
    select(miss_rate=0.001, must_run=["*"] * 1_000, must_run_distance=0, audit_share=0.0),
    select(miss_rate=0.5, audit_share=0.5),
    SelectTestsRequest(tenant_id="acme", run=RUN, time_share=1.0),
    SelectTestsRequest(tenant_id="acme", run=RUN, time_share=1e-9),
    flaky(states=[1, 2, 3], page_size=1_000, page_token="t" * 4_096),
    flaky(repository="r" * 256),
    classify(
        failure_message="m" * 10_000,
        attempt_count=2,
        passed_attempt_count=1,
        failed_test_count=5,
        executed_test_count=5,
        duration=Duration(seconds=1),
    ),
    classify(passed_attempt_count=3, failed_test_count=9),
]

BAD = [
    (PredictTestFailuresRequest(), {"tenant_id", "run"}),
    (PredictTestFailuresRequest(tenant_id="acme", run={}), {"run.repository"}),
    (PrioritizeTestsRequest(tenant_id="acme"), {"run"}),
    (predict(repository="r" * 257), {"run.repository"}),
    (predict(repository="r\0"), {"run.repository"}),
    (predict(commit_sha="c" * 65), {"run.commit_sha"}),
    (predict(start_time=Timestamp(seconds=1)), {"run.start_time"}),
    (predict(test_ids=[*IDS, "one more"]), {"run.test_ids"}),
    (predict(test_ids=["a", ""]), {"run.test_ids[1]"}),
    (predict(test_ids=["a\0"]), {"run.test_ids[0]"}),
    (predict(test_ids=["a", "t" * 513]), {"run.test_ids[1]"}),
    (predict(test_ids=["a", "b", "a", "b"]), {"run.test_ids[2]", "run.test_ids[3]"}),
    (predict(changed_files=[{"path": "p"}] * 5_001), {"run.changed_files"}),
    (predict(changed_files=[{"path": "p"}, {}]), {"run.changed_files[1].path"}),
    (predict(changed_files=[{"path": "p" * 513}]), {"run.changed_files[0].path"}),
    (predict(changed_files=[{"path": "p\0"}]), {"run.changed_files[0].path"}),
    (predict(changed_files=[{"path": "p", "old_path": "o" * 513}]), {"run.changed_files[0].old_path"}),
    (predict(changed_files=[{"path": "p", "old_path": "o\0"}]), {"run.changed_files[0].old_path"}),
    (predict(changed_files=[{"path": "p", "added_line_count": -1}]), {"run.changed_files[0].added_line_count"}),
    (predict(changed_files=[{"path": "p", "deleted_line_count": -1}]), {"run.changed_files[0].deleted_line_count"}),
    (predict(diff=bytes((2 << 20) + 1)), {"run.diff"}),
    (predict(diff=b"d", changed_files=[{"path": "p"}]), {"run.diff"}),
    (PredictTestFailuresRequest(tenant_id="acme", run=RUN, explanation_count=101), {"explanation_count"}),
    (PredictTestFailuresRequest(tenant_id="acme", run=RUN, explanation_count=-1), {"explanation_count"}),
    (SelectTestsRequest(tenant_id="acme", run=RUN), {"goal"}),
    (SelectTestsRequest(tenant_id="acme", run=RUN, time_share=0.0), {"time_share"}),
    (SelectTestsRequest(tenant_id="acme", run=RUN, time_share=1.01), {"time_share"}),
    (SelectTestsRequest(tenant_id="acme", run=RUN, time_share=math.nan), {"time_share"}),
    (select(miss_rate=0.0), {"miss_rate"}),
    (select(miss_rate=0.0009), {"miss_rate"}),
    (select(miss_rate=0.51), {"miss_rate"}),
    (select(miss_rate=math.nan), {"miss_rate"}),
    (select(must_run=["a"] * 1_001), {"must_run"}),
    (select(must_run=["a", ""]), {"must_run[1]"}),
    (select(must_run=["p" * 513]), {"must_run[0]"}),
    (select(must_run_distance=-1), {"must_run_distance"}),
    (select(audit_share=-0.1), {"audit_share"}),
    (select(audit_share=0.51), {"audit_share"}),
    (select(audit_share=math.nan), {"audit_share"}),
    (ListFlakyTestsRequest(), {"tenant_id", "repository"}),
    (flaky(states=[0]), {"states[0]"}),
    (flaky(states=[1, 77]), {"states[1]"}),
    (flaky(states=[1] * 9), {"states"}),
    (flaky(page_size=-1), {"page_size"}),
    (flaky(page_size=1_001), {"page_size"}),
    (flaky(page_token="t" * 4_097), {"page_token"}),
    (ClassifyFailureRequest(), {"tenant_id", "run", "test_id"}),
    (classify(test_id="t" * 513), {"test_id"}),
    (classify(run=RUN | {"test_ids": ["t"]}), {"run.test_ids"}),
    (classify(failure_message="m" * 10_001), {"failure_message"}),
    (classify(failure_message="\0"), {"failure_message"}),
    (classify(attempt_count=0), {"attempt_count"}),
    (classify(passed_attempt_count=-1), {"passed_attempt_count"}),
    (classify(attempt_count=2, passed_attempt_count=2), {"passed_attempt_count"}),
    (classify(failed_test_count=0), {"failed_test_count"}),
    (classify(executed_test_count=0), {"executed_test_count"}),
    (classify(failed_test_count=3, executed_test_count=2), {"failed_test_count"}),
    (classify(duration=Duration(seconds=-1)), {"duration"}),
]  # fmt: skip


@pytest.mark.parametrize("message", GOOD, ids=lambda m: type(m).__name__)
def test_good(message):
    assert rules.violations(message) == []


@pytest.mark.parametrize(
    ("message", "fields"), BAD, ids=[f"{type(message).__name__}-{','.join(sorted(fields))}" for message, fields in BAD]
)
def test_bad(message, fields):
    found = rules.violations(message)
    assert {violation.field for violation in found} == fields
    assert all(violation.description for violation in found)


def test_what_stands_twice_is_named():
    assert rules.violations(predict(test_ids=["a", "b", "a"])) == [
        Violation("run.test_ids[2]", "stands there twice: 'a'")
    ]
    [told] = rules.violations(predict(test_ids=["t" * 512] * 2))
    assert len(told.description) < 150


def test_of_many_the_first_are_told():
    assert len(rules.violations(predict(test_ids=[""] * 20_000))) == 50
    assert len(Names(20_000, 512).check([""] * 20_000, "f")) == 50  # the others are not even made


_WORD = st.sampled_from(["a", "b", "", "\0", "c" * 5, "d" * 6])


@settings(derandomize=True)
@given(words=st.lists(_WORD, max_size=6), once=st.booleans())
def test_names_are_judged_together_as_each_by_itself(words: list[str], once: bool) -> None:
    found = {violation.field for violation in Names(5, 5, once=once).check(words, "f")}
    if len(words) > 5:
        assert found == {"f"}
        return
    bad = {index for index, word in enumerate(words) if not word or Text(5).check(word, "f")}
    again = {index for index, word in enumerate(words) if once and word in words[:index]}
    assert found == {f"f[{index}]" for index in bad | again}


def lines_run(work: Any) -> int:
    """How many lines of Python it takes: a measure that no other process disturbs."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("bad", [{}, {"path": "a", "added_line_count": -1}], ids=["empty", "negative"])
@pytest.mark.parametrize("places", [[4_999], range(2_500), range(5_000)], ids=["last", "half", "all"])
def test_files_that_break_their_rules_cost_no_more_than_are_told(bad: dict[str, Any], places: Sequence[int]) -> None:
    """Two bytes are enough for a file without a path: five thousand of them took a tenth of a second."""
    files: list[dict[str, Any]] = [{"path": "a"}] * 5_000
    for at in places:
        files[at] = bad
    good, broken = predict(changed_files=[{"path": "a"}] * 5_000), predict(changed_files=files)
    found = rules.violations(broken)
    assert [one.field for one in found] == [
        f"run.changed_files[{at}].{'added_line_count' if bad else 'path'}" for at in places[:50]
    ]
    assert lines_run(lambda: rules.violations(broken)) < 16 * lines_run(lambda: rules.violations(good))


def test_of_lists_of_messages_the_first_are_told() -> None:
    many = Many(5_000, Text(1))
    assert len(many.check(["ab"] * 5_000, "f")) == 50
    assert lines_run(lambda: many.check(["ab"] * 5_000, "f")) == lines_run(lambda: many.check(["ab"] * 50, "f"))


def test_no_test_costs_a_line_of_python() -> None:
    """Neither of the rules nor of what reads them: ten times as many tests are the same few lines."""
    few, many = (predict(test_ids=random.Random(1).sample(IDS, count), commit_sha="c") for count in (1_000, 10_000))
    assert lines_run(lambda: rules.validate(many)) == lines_run(lambda: rules.validate(few))
