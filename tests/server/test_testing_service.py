"""``TestIntelligenceService`` over real gRPC: what is asked reaches the domain, and what it answers the caller."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from conductor.testing.v1 import failure_verdict_pb2, flaky_test_pb2, test_run_pb2, test_selection_pb2
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_features.changes.changed_file import Change, ChangedFile
from conductor_features.changes.diff import parse_diff
from conductor_model_store.promise import calibrate
from conductor_rpc import names
from conductor_rpc.exceptions import NoPrediction
from conductor_server.servicers.testing import SERVICE_NAME
from conductor_server.testing import answers
from conductor_server.testing.answers import FlakyStatus
from conductor_server.testing.questions import ChangeTold, MissRate, SelectionRules, TimeShare
from rpc.harness import failure
from rpc.traced import Traced
from server.testing_fakes import FACTS, KNOWN, ORIGIN, PROMISE, Minds, asking, idle

RUN = {"repository": "shop/web", "commit_sha": "abc", "test_ids": ["b", "a", "c"]}
DIFF = b"diff --git a/src/a.py b/src/a.py\n--- a/src/a.py\n+++ b/src/a.py\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
BROKEN = DIFF + b"diff --git a/b.py b/b.py\n--- a/b.py\n+++ b/b.py\n@@ -1,5 +1,5 @@\n x\n"
START = datetime(2026, 1, 10, 12, tzinfo=UTC)


def of_run(kind: Any, *, run: Any = RUN, **fields: Any) -> Any:
    return kind(tenant_id="acme", run=run, **fields)


def require_provenance(provenance: Any) -> None:
    assert (provenance.method, provenance.variant) == (2, 1)
    assert (provenance.model_name, provenance.model_version, provenance.model_digest) == ORIGIN.model
    assert list(provenance.missing_features) == list(ORIGIN.missing_features)
    assert len(provenance.prediction_id) == 32
    assert abs(provenance.prediction_time.ToSeconds() - time.time()) < 60


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def test_predicted_failures():
    minds = Minds()
    async with asking(minds) as (stub, _):
        response = await stub.PredictTestFailures(of_run(PredictTestFailuresRequest, explanation_count=2))
        await stub.PredictTestFailures(of_run(PredictTestFailuresRequest, explanation_count=0))
        await stub.PredictTestFailures(of_run(PredictTestFailuresRequest))
    assert list(response.test_ids) == ["b", "a", "c"]
    assert list(response.failure_probabilities) == pytest.approx([0.9, 0.5, 0.1])
    assert list(response.reasons) == [0, 1, 2]
    first, second = response.explanations
    assert (first.index, first.HasField("impact")) == (0, False)
    assert [(one.feature, one.HasField("value"), one.effect) for one in first.contributions] == [
        ("failure_rate", True, 0.1),
        ("age", False, -0.02),
    ]
    assert (second.index, second.impact.distance, len(second.impact.nodes)) == (1, 2, 3)
    basis = response.basis
    assert (basis.change, basis.impact, basis.graph_commit_sha) == (0, test_run_pb2.IMPACT_BASIS_GRAPH, "abc")
    assert (basis.never_run_count, basis.unreadable_count, list(basis.unplaced_paths)) == (3, 1, ["pyproject.toml"])
    require_provenance(response.provenance)
    assert response.provenance.oldest_feature_age.ToMilliseconds() == 12_500
    assert [count for _, count, _ in minds.asked] == [2, 0, 10]
    run, _, until = minds.asked[0]
    assert (run.tenant_id, run.repository, run.commit_sha, run.test_ids) == ("acme", "shop/web", "abc", ["b", "a", "c"])
    assert (run.told, run.files, run.past_only) == (ChangeTold.NOTHING, [], False)
    assert abs(run.moment_us / 1e6 - time.time()) < 60
    assert 0 < until.remaining_seconds() < 6


async def test_a_named_time_allows_the_past_only():
    minds, request = Minds(), of_run(PredictTestFailuresRequest)
    request.run.start_time.FromDatetime(START)
    async with asking(minds) as (stub, _):
        await stub.PredictTestFailures(request)
    run = minds.asked[0][0]
    assert (run.past_only, run.moment_us) == (True, int(START.timestamp() * 1e6))


async def test_a_change_told_by_its_files():
    files = [
        {"path": "a.py", "added_line_count": 3, "deleted_line_count": 4},
        {"path": "b.py", "kind": "CHANGE_KIND_ADDED"},
        {"path": "c.py", "kind": "CHANGE_KIND_DELETED"},
        {"path": "d.py", "old_path": "old.py", "kind": "CHANGE_KIND_RENAMED"},
        {"path": "e.py", "old_path": "of.py", "kind": "CHANGE_KIND_COPIED"},
        {"path": "f.py", "kind": "CHANGE_KIND_MODIFIED"},
        {"path": "g.py", "kind": 77},
    ]
    minds = Minds()
    async with asking(minds) as (stub, _):
        response = await stub.PredictTestFailures(
            of_run(PredictTestFailuresRequest, run={**RUN, "changed_files": files})
        )
    run = minds.asked[0][0]
    assert run.told is ChangeTold.FILES
    assert response.basis.change == test_run_pb2.CHANGE_BASIS_FILES
    assert run.files == [
        ChangedFile("a.py", "a.py", Change.MODIFIED, added_line_count=3, deleted_line_count=4),
        ChangedFile(None, "b.py", Change.ADDED),
        ChangedFile("c.py", None, Change.DELETED),
        ChangedFile("old.py", "d.py", Change.RENAMED),
        ChangedFile("of.py", "e.py", Change.COPIED),
        ChangedFile("f.py", "f.py", Change.MODIFIED),
        ChangedFile("g.py", "g.py", Change.MODIFIED),
    ]


@pytest.mark.parametrize("repeated", [1, 200], ids=["at once", "in a thread"])
async def test_a_change_told_by_its_diff(repeated):
    minds, diff = Minds(), BROKEN * repeated
    async with asking(minds) as (stub, _):
        response = await stub.SelectTests(of_run(SelectTestsRequest, run={**RUN, "diff": diff}, miss_rate=0.05))
        blank = await stub.SelectTests(of_run(SelectTestsRequest, run={**RUN, "diff": b"\n"}, miss_rate=0.05))
    run = minds.asked[0][0]
    assert (run.told, list(run.files)) == (ChangeTold.DIFF, parse_diff(diff))
    assert response.basis.change == test_run_pb2.CHANGE_BASIS_DIFF
    problems = [f"b.py: {file.problem}" for file in run.files if file.problem]
    assert list(response.basis.diff_problems) == problems[:100] != []
    assert blank.basis.change == test_run_pb2.CHANGE_BASIS_UNSPECIFIED


async def test_what_is_no_diff_is_refused_by_its_field():
    too_many_files = b"".join(
        b"diff --git a/%d b/%d\nold mode 100644\nnew mode 100755\n" % (n, n) for n in range(5_001)
    )
    async with asking(Minds()) as (stub, _):
        for diff, reason in (
            (b"what is this", "NOT_A_DIFF"),
            (too_many_files, "TOO_LARGE"),
            (b"\n" * 600_000, "TOO_LARGE"),
        ):
            for kind, method in (
                (PredictTestFailuresRequest, stub.PredictTestFailures),
                (ClassifyFailureRequest, stub.ClassifyFailure),
            ):
                more = {"test_id": "t"} if kind is ClassifyFailureRequest else {}
                found = await refused(method(of_run(kind, run={"repository": "r", "diff": diff}, **more)))
                assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
                assert list(found.fields) == ["run.diff"]
                assert f"({reason})" in found.fields["run.diff"]


async def test_a_selection():
    minds = Minds(promise=PROMISE)
    told = {"must_run": ["a", "smoke/*"], "must_run_distance": 2, "audit_share": 0.0}
    async with asking(minds) as (stub, _):
        response = await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05, **told))
        minds.promise = None
        cheaper = await stub.SelectTests(of_run(SelectTestsRequest, time_share=0.25))
    assert minds.asked[0][1] == (MissRate(0.05), SelectionRules(["a", "smoke/*"], 2, 0.0))
    assert minds.asked[1][1] == (TimeShare(0.25), SelectionRules([], 0, 0.02))
    assert list(response.test_ids) == ["b", "a", "c"]
    assert list(response.reasons) == [5, 8, 100]
    assert list(response.failure_probabilities) == pytest.approx([0.9, 0.5, 0.1])
    assert list(response.selected) == [1, 0]
    assert (response.time.selected_duration.ToSeconds(), response.time.total_duration.ToSeconds()) == (3, 6)
    assert (response.time.unknown_count, response.audit_share, response.expected_missed_failures) == (2, 0.02, 0.75)
    promise = response.promise
    assert (promise.miss_rate, promise.level, promise.threshold, promise.calibration_run_count) == (
        0.05,
        0.04,
        0.125,
        250,
    )
    assert promise.basis == test_selection_pb2.PROMISE_BASIS_CALIBRATED
    assert promise.calibration_end_time.ToSeconds() == 1_700_000_000
    assert (promise.realised.miss_rate, promise.realised.run_count) == (0.03, 120)
    assert promise.realised.start_time.ToSeconds() < promise.realised.end_time.ToSeconds()
    require_provenance(response.provenance)
    assert not cheaper.HasField("promise")


async def test_a_promise_that_runs_everything_has_no_threshold():
    too_few = calibrate([], 0.05)
    minds = Minds(promise=answers.Promise(0.05, answers.Ground.NO_CALIBRATION))
    async with asking(minds) as (stub, _):
        nothing = (await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05))).promise
        minds.promise = answers.Promise(0.05, answers.Ground.TOO_FEW_RUNS, too_few)
        little = (await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05))).promise
    assert (nothing.basis, nothing.miss_rate, nothing.calibration_run_count) == (5, 0.05, 0)
    assert (little.basis, little.level) == (2, 0.05)
    for promise in (nothing, little):
        assert not promise.HasField("threshold")
        assert not promise.HasField("realised")


async def test_an_order_comes_in_parts_the_first_of_it_first():
    ids = [f"test_{number}" for number in range(2_500)]
    async with asking(Minds()) as (stub, _):
        parts = [
            part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run={**RUN, "test_ids": ids}))
        ]
        [few] = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest))]
    assert [len(part.test_ids) for part in parts] == [100, 1_000, 1_000, 400]
    assert [test for part in parts for test in part.test_ids] == ids[::-1]
    seconds = [second for part in parts for second in part.expected_seconds]
    assert seconds == list(np.arange(2_500.0, 0, -1))
    probabilities = [one for part in parts for one in part.failure_probabilities]
    assert probabilities == sorted(probabilities)
    assert [part.total_count for part in parts] == [2_500, 0, 0, 0]
    assert [part.HasField("basis") for part in parts] == [part.HasField("provenance") for part in parts]
    assert [part.HasField("basis") for part in parts] == [True, False, False, False]
    require_provenance(parts[0].provenance)
    assert (list(few.test_ids), few.total_count) == (["c", "a", "b"], 3)


async def test_no_tests_are_an_order_too(monkeypatch):
    monkeypatch.setattr("server.testing_fakes.KNOWN", ())
    async with asking(Minds()) as (stub, _):
        [only] = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run={"repository": "r"}))]
    assert (only.total_count, list(only.test_ids), only.HasField("provenance")) == (0, [], True)


async def test_who_goes_away_gets_no_further_part():
    """Tests of 512 characters: more than the connection takes while nobody reads."""
    ids = [f"{number:05d}".ljust(512, "x") for number in range(8_000)]
    async with asking(Minds(), max_in_flight_count=1, min_in_flight_count=1) as (stub, server):
        request = of_run(PrioritizeTestsRequest, run={"repository": "r", "test_ids": ids})
        call = stub.PrioritizeTests(request)
        assert (await call.read()).total_count == 8_000
        assert server.in_flight_count == 1
        call.cancel()
        await idle(server)
        late = stub.PrioritizeTests(request, timeout=0.5)
        assert (await late.read()).total_count == 8_000
        await asyncio.sleep(0.6)  # nobody reads until its time is over
        await idle(server)
        assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_flaky_tests_page_by_page():
    minds = Minds()
    async with asking(minds) as (stub, _):
        found, token = [], ""
        while True:
            request = ListFlakyTestsRequest(tenant_id="acme", repository="shop/web", page_size=15, page_token=token)
            page = await stub.ListFlakyTests(request)
            found += [test.test_id for test in page.tests]
            assert page.total_count == len(KNOWN)
            token = page.next_page_token
            if not token:
                break
        await stub.ListFlakyTests(ListFlakyTestsRequest(tenant_id="acme", repository="r", states=[3, 1]))
    assert found == list(KNOWN)
    assert [asked for _, asked, _ in minds.asked] == [
        ({FlakyStatus.ACTIVE, FlakyStatus.QUARANTINED}, 15, after) for after in ("", KNOWN[14], KNOWN[29])
    ] + [({FlakyStatus.FIXED, FlakyStatus.ACTIVE}, 100, "")]
    test = page.tests[0]
    assert (test.state, test.flaky_probability) == (flaky_test_pb2.FLAKY_STATE_QUARANTINED, 0.5)
    require_evidence(test.evidence)
    assert [(one.state, one.time.ToSeconds()) for one in test.history] == [(1, 1_600_000_000), (2, 1_600_000_100)]
    require_provenance(page.provenance)


def require_evidence(evidence: Any) -> None:
    assert (evidence.run_count, evidence.failure_count, evidence.flip_count, evidence.rerun_flip_count) == (
        100,
        12,
        9,
        4,
    )
    assert (evidence.flip_rate, evidence.outcome_entropy, evidence.runs_since_flip) == (0.25, 0.75, 3)
    assert evidence.last_flip_time.ToNanoseconds() / 1e9 == FACTS.last_flip_seconds


async def test_a_page_token_holds_for_its_list_only():
    minds = Minds()
    first = ListFlakyTestsRequest(tenant_id="acme", repository="shop/web", page_size=10)
    async with asking(minds) as (stub, _):
        token = (await stub.ListFlakyTests(first)).next_page_token
        asked = len(minds.asked)
        for changes in (
            {"tenant_id": "zeta"},
            {"repository": "shop/app"},
            {"states": [3]},
            {"page_token": token[:-1]},
            {"page_token": token[1:]},
            {"page_token": token + "A"},
            {"page_token": token.swapcase()},
            {"page_token": "!"},
            {"page_token": "AAAA"},
            {"page_token": "é" * 40},
        ):
            request = ListFlakyTestsRequest(tenant_id="acme", repository="shop/web", page_size=10, page_token=token)
            request.MergeFrom(ListFlakyTestsRequest(**changes))
            found = await refused(stub.ListFlakyTests(request))
            assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"]), changes
        assert len(minds.asked) == asked
        first.page_token, first.page_size = token, 20  # another size is another cut of the same list
        assert (await stub.ListFlakyTests(first)).tests[0].test_id == KNOWN[10]


async def test_a_failure_is_judged():
    minds = Minds()
    counts = {"attempt_count": 3, "passed_attempt_count": 0, "failed_test_count": 1, "executed_test_count": 50}
    run = {"repository": "shop/web", "diff": DIFF}
    request = of_run(ClassifyFailureRequest, run=run, test_id="t", failure_message="timed out", **counts)
    request.duration.FromMilliseconds(1_250)
    async with asking(minds) as (stub, _):
        response = await stub.ClassifyFailure(request)
        bare = await stub.ClassifyFailure(of_run(ClassifyFailureRequest, run={"repository": "r"}, test_id="t"))
    asked = minds.asked[0][1]
    assert (asked.run.test_ids, asked.run.told, asked.message, asked.seconds) == (
        ["t"],
        ChangeTold.DIFF,
        "timed out",
        1.25,
    )
    assert {name: getattr(asked, name) for name in counts} == counts
    nothing = minds.asked[1][1]
    assert {getattr(nothing, name) for name in (*counts, "seconds")} == {None}
    assert response.verdict == failure_verdict_pb2.FAILURE_VERDICT_FLAKY
    told = response.probabilities
    assert (told.real, told.flaky, told.infrastructure) == (0.25, 0.625, 0.125)
    assert list(response.evidence) == ["it passed when it was tried again"]
    require_evidence(response.history)
    assert response.next_step == failure_verdict_pb2.NEXT_STEP_RERUN_TEST
    assert response.basis.change == test_run_pb2.CHANGE_BASIS_DIFF
    require_provenance(response.provenance)
    assert not bare.HasField("history")


async def test_what_breaks_a_rule_reaches_nobody():
    minds = Minds()
    bad = {"repository": "r", "test_ids": ["a", "b", "a"]}
    async with asking(minds) as (stub, _):
        for method, request in (
            (stub.PredictTestFailures, of_run(PredictTestFailuresRequest, run=bad)),
            (stub.SelectTests, of_run(SelectTestsRequest, run=bad, miss_rate=0.05)),
        ):
            found = await refused(method(request))
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
            assert found.fields == {"run.test_ids[2]": "stands there twice: 'a'"}
        stream = stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run=bad))
        found = await refused(stream.read())
        assert found.fields == {"run.test_ids[2]": "stands there twice: 'a'"}
    assert not minds.asked


async def test_nothing_to_answer_from_is_told():
    async def nothing() -> None:
        raise NoPrediction

    async with asking(Minds(before=nothing)) as (stub, _):
        for call in (
            stub.PredictTestFailures(of_run(PredictTestFailuresRequest)),
            stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05)),
            stub.PrioritizeTests(of_run(PrioritizeTestsRequest)).read(),
            stub.ListFlakyTests(ListFlakyTestsRequest(tenant_id="acme", repository="r")),
            stub.ClassifyFailure(of_run(ClassifyFailureRequest, run={"repository": "r"}, test_id="t")),
        ):
            found = await refused(call)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_PREDICTION")


async def test_the_deadline_ends_the_work():
    given_up = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            given_up.set()

    async with asking(Minds(before=hang)) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await given_up.wait()


async def test_large_calls_take_more_places_and_one_alone_gets_in():
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await let_go.wait()

    limits = {"max_in_flight_count": 40, "min_in_flight_count": 40, "concurrency_limit": "fixed"}
    many = {"repository": "r", "test_ids": [f"t{number}" for number in range(20_000)]}
    few = {"repository": "r", "test_ids": ["a"]}
    async with asking(Minds(before=wait), **limits) as (stub, _):
        large = asyncio.ensure_future(stub.SelectTests(of_run(SelectTestsRequest, run=many, miss_rate=0.05)))
        await begun.wait()
        found = await refused(stub.SelectTests(of_run(SelectTestsRequest, run=few, miss_rate=0.05)))
        assert found.reason == "TENANT_OVERLOADED"
        other = SelectTestsRequest(tenant_id="zeta", run=few, miss_rate=0.05)
        others = asyncio.ensure_future(stub.SelectTests(other))
        await asyncio.sleep(0)
        let_go.set()
        assert len((await large).test_ids) == 20_000
        assert len((await others).test_ids) == 1


@pytest.mark.parametrize("length", [206, 210])
async def test_what_fits_in_a_message(length):
    """20,000 tests of 206 bytes do, and a stock client would not take the answer: the contract tells of both."""
    ids = [f"{number:05d}".ljust(length, "x") for number in range(20_000)]
    async with asking(Minds()) as (stub, _):
        call = stub.SelectTests(of_run(SelectTestsRequest, run={"repository": "r", "test_ids": ids}, miss_rate=0.05))
        if length == 206:
            response = await call
            assert list(response.test_ids) == ids
            assert response.ByteSize() > 4 << 20
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_trace_tells_what_answered():
    traced = Traced(head=ALWAYS_ON)
    async with asking(Minds(), traced.telemetry) as (stub, _):
        response = await stub.PredictTestFailures(of_run(PredictTestFailuresRequest))
        [part] = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest))]
    by_name = {span.name: span.attributes for span in traced.all_spans}
    told, streamed = by_name[f"{SERVICE_NAME}/PredictTestFailures"], by_name[f"{SERVICE_NAME}/PrioritizeTests"]
    assert told[names.PREDICTION_ID] == response.provenance.prediction_id
    assert (told[names.MODEL_VERSION], told[names.ANSWERED_TOGETHER]) == (ORIGIN.model.version, "3")
    assert told[names.FEATURES_MISSING] == "1: test_history_v2.failure_rate"
    assert streamed[names.PREDICTION_ID] == part.provenance.prediction_id


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (answers.Impact, test_run_pb2.ImpactBasis, "IMPACT_BASIS_"),
        (answers.Reason, test_run_pb2.FailureReason, "FAILURE_REASON_"),
        (answers.Choice, test_selection_pb2.SelectionReason, "SELECTION_REASON_"),
        (answers.Ground, test_selection_pb2.PromiseBasis, "PROMISE_BASIS_"),
        (answers.FlakyStatus, flaky_test_pb2.FlakyState, "FLAKY_STATE_"),
        (answers.Verdict, failure_verdict_pb2.FailureVerdict, "FAILURE_VERDICT_"),
        (answers.NextStep, failure_verdict_pb2.NextStep, "NEXT_STEP_"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_values_are_the_contracts(ours: Any, theirs: Any, prefix: str) -> None:
    told = {value.value: value.name for value in ours if value.value}
    assert told == {number: name.removeprefix(prefix) for name, number in theirs.items() if number}
